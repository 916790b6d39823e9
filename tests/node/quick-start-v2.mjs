// A server as the documentation of the TypeScript SDK 2.x has it, over stdio, or with a port over Streamable HTTP: both
// eras, and a key of `requestState` of its process. What each tool does: tests/compatibility/matrix.rs.
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { toNodeHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, createRequestStateCodec, inputRequired, McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';
import { onChange, until } from './changes.mjs';

const [port, note] = process.argv.slice(2);
const text = (text) => ({ content: [{ type: 'text', text }] });
const uri = `file://${note}`;
const requestedSchema = { type: 'object', properties: { name: { type: 'string' } } };
const sampling = { messages: [{ role: 'user', content: { type: 'text', text: 'Say something.' } }], maxTokens: 10 };
const state = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) });

/** What the client answers to this question, or the result that asks it. */
async function answer(ctx, question, then) {
  const answer = ctx.mcpReq.inputResponses?.question;
  if (answer) return then(answer);
  return inputRequired({ inputRequests: { question }, requestState: await state.mint({ asked: true }, ctx) });
}

function makeServer() {
  const capabilities = { logging: {}, resources: { subscribe: true } };
  const options = { capabilities, requestState: { verify: state.verify } };
  const mcp = new McpServer({ name: 'quick-start', version: '1' }, options);
  mcp.registerTool('echo', { description: 'The text again', inputSchema: z.object({ text: z.string() }) }, async (args) =>
    text(args.text),
  );
  mcp.registerTool(
    'steps',
    { description: 'Three steps, each reported', inputSchema: z.object({ trace: z.string() }) },
    async ({ trace }, { mcpReq }) => {
      const progressToken = mcpReq._meta?.progressToken;
      for (const progress of [1, 2, 3]) {
        await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 3 } });
      }
      await until(`${trace}.seen`);
      return text('three steps');
    },
  );
  mcp.registerTool('log', { description: 'Writes a log line' }, async (ctx) => {
    await ctx.mcpReq.log('error', 'a line');
    return text('logged');
  });
  mcp.registerTool(
    'wait',
    { description: 'Waits until it is cancelled', inputSchema: z.object({ trace: z.string() }) },
    ({ trace }, { mcpReq }) =>
      new Promise((_, reject) => {
        mcpReq.signal.addEventListener('abort', () => {
          writeFileSync(`${trace}.cancelled`, '');
          reject(mcpReq.signal.reason);
        });
        writeFileSync(`${trace}.waits`, '');
      }),
  );
  mcp.registerTool('ask', { description: 'Asks by its result' }, (ctx) => {
    const question = inputRequired.elicit({ message: 'Who is it?', requestedSchema });
    return answer(ctx, question, ({ content }) => text(`hello ${content.name}, from ${process.pid}`));
  });
  mcp.registerTool('sample', { description: "Has the client's model say something" }, (ctx) =>
    answer(ctx, inputRequired.createMessage(sampling), ({ content }) => text(`it said ${content.text}`)),
  );
  mcp.registerTool('roots', { description: 'Asks where the client works' }, (ctx) =>
    answer(ctx, inputRequired.listRoots(), ({ roots }) => text(roots.map(({ uri }) => uri).join(' '))),
  );
  mcp.registerTool('ask_live', { description: 'Asks in the middle of the call' }, async (ctx) => {
    const answer = await ctx.mcpReq.elicitInput({ mode: 'form', message: 'Who is it?', requestedSchema });
    return text(`hello ${answer.content?.name}, from ${process.pid}`);
  });
  mcp.registerTool('sample_live', { description: "Has the client's model say something meanwhile" }, async (ctx) => {
    const answer = await ctx.mcpReq.requestSampling(sampling);
    return text(`it said ${answer.content.text}`);
  });
  mcp.registerTool('fail', { description: 'Fails' }, async () => {
    throw new Error('it failed');
  });
  mcp.registerTool('large', { description: 'Two mebibytes' }, async () => text('x'.repeat(2 << 20)));
  mcp.registerTool('crash', { description: 'Ends the server in the middle of the call' }, () => process.exit(1));
  mcp.registerResource('note', uri, {}, async () => ({ contents: [{ uri, text: 'a note' }] }));
  return mcp;
}

if (port && port !== 'stdio') {
  const handler = createMcpHandler(makeServer);
  onChange(note, () => handler.notify.resourceUpdated(uri));
  createServer(toNodeHandler(handler)).listen(Number(port), '127.0.0.1');
} else {
  // One server for the connection, of its client's era: clients of older revisions subscribe by a request.
  serveStdio(() => {
    const mcp = makeServer();
    const subscribed = new Set();
    mcp.server.setRequestHandler('resources/subscribe', ({ params }) => (subscribed.add(params.uri), {}));
    mcp.server.setRequestHandler('resources/unsubscribe', ({ params }) => (subscribed.delete(params.uri), {}));
    const stop = onChange(note, () => mcp.server.sendResourceUpdated({ uri }).catch(() => {}));
    process.stdin.on('end', stop);
    return mcp;
  });
}
