// A modern (2026-07-28) MCP server that offers what the official conformance suite asks of a server, as
// conformance-fixture.mjs has it: on stdio, or with `--http PORT` over Streamable HTTP. It refuses legacy clients, so that
// what a legacy client gets through the bridge is the bridge's translation and not this server's; but with
// `--both-eras`, on stdio, it is of the era of the first message, as servers of this SDK are by default.
//
// TOLLBRIDGE_STATE_KEY signs requestState: processes that have the same may each get the next round of a call. Without it
// each process has a key of its own, as is the default of some SDKs. TOLLBRIDGE_TASKS adds tasks (conformance-tasks.mjs).

import { createMcpHandler, createRequestStateCodec, inputRequired, Server } from '@modelcontextprotocol/server';
import { capabilities, handlers, httpPort, listen, onChange, serverInfo } from './conformance-fixture.mjs';
import * as tasks from './conformance-tasks.mjs';

const hasBothEras = process.argv.includes('--both-eras');
const handle = handlers(-32602, tasks.place && tasks.tools);
const offered = tasks.place ? { ...capabilities, extensions: { [tasks.EXTENSION]: {} } } : capabilities;
const ANYTHING = { '~standard': { version: 1, vendor: 'tollbridge', validate: (value) => ({ value }) } };
const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities';
const state = createRequestStateCodec({
  key: process.env.TOLLBRIDGE_STATE_KEY || crypto.getRandomValues(new Uint8Array(32)),
  bind: (ctx) => ctx.mcpReq.method,
});

/** Thrown where the answer to a question is not there yet: the call ends here and is made again with it. */
const WAITING = Symbol('waiting');

/** What a tool or a prompt may do in this round of its call. */
function callOf(server, ctx, name) {
  const kept = ctx.mcpReq.requestState();
  if (kept && kept.name !== name) throw Object.assign(new Error('requestState of another call'), { code: -32602 });
  const given = { ...kept?.answers, ...ctx.mcpReq.inputResponses };
  const answers = {};
  const questions = {};
  return {
    ask: async (key, question) => {
      if (Object.hasOwn(given, key)) return (answers[key] = given[key]);
      questions[key] = question;
      throw WAITING;
    },
    capabilities: ctx.mcpReq.envelope?.[CAPABILITIES] ?? server.getClientCapabilities(),
    log: (level, data) => ctx.mcpReq.log(level, data, 'conformance'),
    progress: async (progress, total) => {
      const progressToken = ctx.mcpReq._meta?.progressToken;
      if (progressToken === undefined) return;
      await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
    askAgain: async () =>
      inputRequired({ inputRequests: questions, requestState: await state.mint({ name, answers }, ctx) }),
  };
}

function makeServer() {
  const server = new Server(serverInfo, { capabilities: offered, requestState: { verify: state.verify } });
  for (const [method, run] of Object.entries(handle)) {
    server.setRequestHandler(method, async ({ params = {} }, ctx) => {
      const call = callOf(server, ctx, params.name);
      try {
        return await run(params, call);
      } catch (error) {
        if (error === WAITING) return call.askAgain();
        throw error;
      }
    });
  }
  for (const [method, run] of Object.entries(tasks.place ? tasks.methods : {})) {
    // The SDK takes the answers out of the parameters, of whatever method.
    server.setRequestHandler(method, { params: ANYTHING }, (params, ctx) => run(params, ctx.mcpReq.inputResponses ?? {}));
  }
  if (hasBothEras) {
    // Requests of older revisions.
    server.setRequestHandler('resources/subscribe', ({ params }) => (handle['resources/read'](params), {}));
    server.setRequestHandler('resources/unsubscribe', () => ({}));
  }
  return server;
}

const port = httpPort();
if (port === undefined) {
  const { serveStdio } = await import('@modelcontextprotocol/server/stdio');
  let server;
  serveStdio(() => (server = makeServer()), { legacy: hasBothEras ? 'serve' : 'reject' });
  // The entry passes these on to the subscriptions of this connection, if there are any that want them.
  onChange((list) => server?.notification({ method: `notifications/${list}/list_changed` }).catch(() => {}));
} else {
  const { toNodeHandler } = await import('@modelcontextprotocol/node');
  const handler = createMcpHandler(makeServer, { legacy: 'reject' });
  onChange((list) => (list === 'tools' ? handler.notify.toolsChanged() : handler.notify.promptsChanged()));
  await listen(port, toNodeHandler(handler));
}
