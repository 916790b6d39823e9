// The official TypeScript client, 1.x: legacy only; over HTTP+SSE if the URL says so. The task and the answer: matrix.mjs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';
import { about, capabilities, elicited, rooted, run, sampled, task } from './matrix.mjs';

async function connect() {
  const [logs, updated] = [[], []];
  const client = new Client(about, { capabilities });
  client.setRequestHandler(mcp.ElicitRequestSchema, elicited);
  client.setRequestHandler(mcp.CreateMessageRequestSchema, sampled);
  client.setRequestHandler(mcp.ListRootsRequestSchema, rooted);
  client.setNotificationHandler(mcp.LoggingMessageNotificationSchema, ({ params }) => void logs.push(params.data));
  client.setNotificationHandler(mcp.ResourceUpdatedNotificationSchema, ({ params }) => updated.forEach((seen) => seen(params.uri)));
  const [command, ...args] = task.command ?? [];
  const Http = task.url?.endsWith('/sse') ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = task.url ? new Http(new URL(task.url)) : new StdioClientTransport({ command, args });
  await client.connect(transport);
  return {
    logs,
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    call: async (name, args, options) => {
      const result = await client.callTool({ name, arguments: args }, undefined, options);
      return [result.isError ?? false, result.content[0].text];
    },
    wantLogs: async () => void (client.getServerCapabilities().logging && (await client.setLoggingLevel('info'))),
    subscribe: (uri, seen) => (updated.push(seen), client.subscribeResource({ uri })),
    close: () => client.close(),
  };
}

await run(connect);
