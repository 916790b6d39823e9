// The official TypeScript clients at every revision, in front of compatible-server.mjs: everything that a client does, once.
// The task comes as one JSON argument: { url, revision, name, directory }; the resource `shared://NAME` is the client's own,
// and `directory` is where the server leaves its traces. What was seen goes to stdout as one line of JSON.
//
// 1.x speaks the revisions to 2025-11-25, the oldest over HTTP+SSE, and is told which one by its transport; 2.x the modern one.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const task = JSON.parse(process.argv[2]);
const MODERN = '2026-07-28';
const PATIENCE_MS = 30_000;
const LOOK_MS = 20;
const url = new URL(task.url);
const about = [{ name: 'compatible-client', version: '1.0.0' }];
const capabilities = { elicitation: {}, sampling: {} };
const uri = `shared://${task.name}`;
const seen = { logs: [], progress: [], updated: [] };

const elicited = () => ({ action: 'accept', content: { colour: `blue-${task.name}` } });
const sampled = () => ({
  role: 'assistant',
  model: 'a-model',
  content: { type: 'text', text: `word-${task.name}` },
});

/** Looks again and again until it is so; says whether it was. */
async function until(isSo) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!isSo()) {
    if (Date.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  return true;
}

/** Whether the server has written this client's name into a file. */
function isIn(file) {
  try {
    return readFileSync(join(task.directory, file), 'utf8').split('\n').includes(task.name);
  } catch {
    return false;
  }
}

const touch = () => writeFileSync(join(task.directory, `shared.${task.name}`), `${Date.now()}`);

async function legacy() {
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
  const mcp = await import('@modelcontextprotocol/sdk/types.js');
  const { SSEClientTransport } = await import('@modelcontextprotocol/sdk/client/sse.js');
  const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const transport =
    task.revision === '2024-11-05' ? new SSEClientTransport(url) : new StreamableHTTPClientTransport(url);
  const send = transport.send.bind(transport);
  transport.send = (message, options) => {
    if (message.method === 'initialize') message.params.protocolVersion = task.revision;
    return send(message, options);
  };
  const setProtocolVersion = transport.setProtocolVersion.bind(transport);
  transport.setProtocolVersion = (version) => {
    seen.version = version;
    setProtocolVersion(version);
  };

  const client = new Client(...about, { capabilities });
  client.setRequestHandler(mcp.ElicitRequestSchema, elicited);
  client.setRequestHandler(mcp.CreateMessageRequestSchema, sampled);
  client.setNotificationHandler(mcp.LoggingMessageNotificationSchema, ({ params }) => void seen.logs.push(params.level));
  client.setNotificationHandler(mcp.ResourceUpdatedNotificationSchema, ({ params }) => void seen.updated.push(params.uri));
  await client.connect(transport);
  return {
    client,
    call: (params, options) => client.callTool(params, undefined, options),
    atLevel: async (level, params) => {
      await client.setLoggingLevel(level);
      return client.callTool(params);
    },
    subscribe: () => client.subscribeResource({ uri }),
  };
}

async function modern() {
  const { Client, StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
  const client = new Client(...about, { capabilities, versionNegotiation: { mode: { pin: task.revision } } });
  client.setRequestHandler('elicitation/create', elicited);
  client.setRequestHandler('sampling/createMessage', sampled);
  client.setNotificationHandler('notifications/message', ({ params }) => void seen.logs.push(params.level));
  client.setNotificationHandler('notifications/resources/updated', ({ params }) => void seen.updated.push(params.uri));
  await client.connect(new StreamableHTTPClientTransport(url));
  seen.version = client.getNegotiatedProtocolVersion();
  return {
    client,
    call: (params, options) => client.callTool(params, options),
    atLevel: (level, params) => client.callTool({ ...params, _meta: { 'io.modelcontextprotocol/logLevel': level } }),
    subscribe: () => client.listen({ resourceSubscriptions: [uri] }),
  };
}

const textOf = (result) => result.content.map((item) => item.text ?? item.type).join('\n');
const named = (name) => ({ name, arguments: { name: task.name, text: task.name } });

touch();
const { client, call, atLevel, subscribe } = await (task.revision === MODERN ? modern() : legacy());
seen.server = client.getServerVersion()?.name;
seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
seen.echo = textOf(await call(named('echo')));
const onprogress = ({ progress, total }) => seen.progress.push([progress, total]);
seen.steps = textOf(await call(named('steps'), { onprogress }));

const abort = new AbortController();
const waiting = call(named('wait'), { signal: abort.signal }).then(
  () => 'an answer',
  () => 'no answer',
);
await until(() => isIn('waits'));
abort.abort();
seen.waited = await waiting;
seen.cancelled = await until(() => isIn('cancelled'));

seen.elicited = textOf(await call(named('ask')));
seen.sampled = textOf(await call(named('sample')));
await atLevel('warning', named('log'));

await subscribe();
// Who listens sees changes from when it began to, which nobody is told: the resource changes until one is seen.
seen.wasUpdated = await until(() => (touch(), seen.updated.length > 0));

const failed = await call(named('fail'));
seen.failed = [failed.isError, textOf(failed)];
seen.missing = await client.readResource({ uri: 'shared://nobody-has-written-this' }).then(
  () => 'found',
  (error) => error.code,
);
await client.close();
console.log(JSON.stringify(seen));
process.exit(0);
