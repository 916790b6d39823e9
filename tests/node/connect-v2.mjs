// The official TypeScript client, 2.x, whose user has saved no token; with `mode` "auto" it finds out the era of its server. The
// task and the steps: connect.mjs.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { about, capabilities, completed, listChanged, run, task, visited } from './connect.mjs';

await run(async () => {
  const negotiation = task.mode ? { versionNegotiation: { mode: task.mode } } : {};
  const client = new Client(about, { capabilities, ...negotiation });
  if (task.pages) client.setRequestHandler('elicitation/create', visited);
  client.setNotificationHandler('notifications/tools/list_changed', listChanged);
  client.setNotificationHandler('notifications/elicitation/complete', completed);
  await client.connect(new StreamableHTTPClientTransport(new URL(task.url)));
  if (client.getNegotiatedProtocolVersion() >= '2026-07-28') await client.listen({ toolsListChanged: true });
  return {
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    call: async (name) => {
      const { isError = false, content } = await client.callTool({ name, arguments: {} });
      return { isError, text: content[0].text };
    },
    close: () => client.close(),
  };
});
