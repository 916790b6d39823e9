// The official TypeScript client, 1.x, whose user has saved no token. The task and the steps: connect.mjs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';
import { about, capabilities, completed, listChanged, run, task, visited } from './connect.mjs';

await run(async () => {
  const client = new Client(about, { capabilities });
  if (task.pages) client.setRequestHandler(mcp.ElicitRequestSchema, visited);
  client.setNotificationHandler(mcp.ToolListChangedNotificationSchema, listChanged);
  client.setNotificationHandler(mcp.ElicitationCompleteNotificationSchema, completed);
  const [command, ...args] = task.command ?? [];
  await client.connect(
    task.url ? new StreamableHTTPClientTransport(new URL(task.url)) : new StdioClientTransport({ command, args }),
  );
  return {
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    call: async (name) => {
      const { isError = false, content } = await client.callTool({ name, arguments: {} });
      return { isError, text: content[0].text };
    },
    close: () => client.close(),
  };
});
