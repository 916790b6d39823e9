// The official TypeScript client, 1.x, over HTTP+SSE (2024-11-05). The task and the answer: visit.mjs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { task, transportOptions, visit } from './visit.mjs';

const client = new Client({ name: 'typescript-sse', version: '1.0.0' });
await client.connect(new SSEClientTransport(new URL(task.url), transportOptions));
await visit(client, {}, (params, options) => client.callTool(params, undefined, options));
