// The official TypeScript client, 1.x, over HTTP+SSE (2024-11-05), in front of server-everything: what it hears of an
// operation whose last progress comes just before its answer. Its one argument is the URL; stdout is one line of JSON.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';

const client = new Client({ name: 'typescript-sse', version: '1.0.0' });
await client.connect(new SSEClientTransport(new URL(process.argv[2])));
const progress = [];
const operation = { name: 'trigger-long-running-operation', arguments: { duration: 0.3, steps: 3 } };
await client.callTool(operation, undefined, { onprogress: (told) => progress.push(told.progress) });
await client.close();
console.log(JSON.stringify(progress));
