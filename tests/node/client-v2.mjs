// The official TypeScript client, 2.x. `mode` is 'legacy' (its default), 'auto', or a modern version to insist on.
// The task and the answer: visit.mjs.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { task, transportOptions, visit } from './visit.mjs';

const named = { legacy: 'legacy', auto: 'auto' };
const options = task.mode ? { versionNegotiation: { mode: named[task.mode] ?? { pin: task.mode } } } : {};
const client = new Client({ name: 'typescript-v2', version: '1.0.0' }, options);
await client.connect(new StreamableHTTPClientTransport(new URL(task.url), transportOptions));
await visit(client, { protocolVersion: client.getNegotiatedProtocolVersion() }, (params, callOptions) =>
  client.callTool(params, callOptions),
);
