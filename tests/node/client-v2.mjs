// The official TypeScript client, 2.x: legacy as it comes, or with `mode` "auto" it finds out the era of its server. The task
// and the answer: matrix.mjs.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { about, capabilities, elicited, rooted, run, sampled, task } from './matrix.mjs';

async function connect() {
  const [logs, updated] = [[], []];
  const negotiation = task.mode ? { versionNegotiation: { mode: task.mode } } : {};
  const client = new Client(about, { capabilities, ...negotiation });
  client.setRequestHandler('elicitation/create', elicited);
  client.setRequestHandler('sampling/createMessage', sampled);
  client.setRequestHandler('roots/list', rooted);
  client.setNotificationHandler('notifications/message', ({ params }) => void logs.push(params.data));
  client.setNotificationHandler('notifications/resources/updated', ({ params }) => updated.forEach((seen) => seen(params.uri)));
  const [command, ...args] = task.command ?? [];
  const transport = task.url
    ? new StreamableHTTPClientTransport(new URL(task.url))
    : new StdioClientTransport({ command, args });
  await client.connect(transport);
  const isModern = client.getNegotiatedProtocolVersion() >= '2026-07-28';
  return {
    logs,
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    call: async (name, args, options, params = {}) => {
      const result = await client.callTool({ name, arguments: args, ...params }, options);
      return [result.isError ?? false, result.content[0].text];
    },
    wantLogs: async () => {
      if (isModern) return { _meta: { 'io.modelcontextprotocol/logLevel': 'info' } };
      if (client.getServerCapabilities().logging) await client.setLoggingLevel('info');
    },
    subscribe: async (uri, seen) => {
      updated.push(seen);
      await (isModern ? client.listen({ resourceSubscriptions: [uri] }) : client.subscribeResource({ uri }));
    },
    close: () => client.close(),
  };
}

await run(connect);
