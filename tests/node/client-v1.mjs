// The official TypeScript client, 1.x: legacy only. The task and the answer: visit.mjs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { task, transportOptions, visit } from './visit.mjs';

const client = new Client({ name: 'typescript-v1', version: '1.0.0' });
const transport = new StreamableHTTPClientTransport(new URL(task.url), transportOptions);
await client.connect(transport);
await visit(client, { protocolVersion: transport.protocolVersion }, (params, options) =>
  client.callTool(params, undefined, options),
);
