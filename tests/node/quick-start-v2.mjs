// A server as the documentation of the TypeScript SDK 2.x has it, over stdio: both eras, and a key of `requestState` of
// its process.
import { createRequestStateCodec, inputRequired, McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';

const text = (text) => ({ content: [{ type: 'text', text }] });
const requestedSchema = { type: 'object', properties: { name: { type: 'string' } } };
const state = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) });

serveStdio(() => {
  const mcp = new McpServer({ name: 'quick-start', version: '1' }, { requestState: { verify: state.verify } });
  mcp.registerTool('ask', { description: 'Asks in the middle of the call' }, async (ctx) => {
    const answer = await ctx.mcpReq.elicitInput({ mode: 'form', message: 'Who is it?', requestedSchema });
    return text(`hello ${answer.content?.name}, from ${process.pid}`);
  });
  mcp.registerTool('sample', { description: "Has the client's model say something" }, async (ctx) => {
    const messages = [{ role: 'user', content: { type: 'text', text: 'Say something.' } }];
    const answer = await ctx.mcpReq.requestSampling({ messages, maxTokens: 10 });
    return text(`it said ${answer.content.text}`);
  });
  mcp.registerTool('resolve', { description: 'Asks by its result' }, async (ctx) => {
    const answer = ctx.mcpReq.inputResponses?.name;
    if (answer) return text(`hello ${answer.content.name}, from ${process.pid}`);
    const question = { method: 'elicitation/create', params: { mode: 'form', message: 'Who is it?', requestedSchema } };
    return inputRequired({ inputRequests: { name: question }, requestState: await state.mint({ asked: true }, ctx) });
  });
  return mcp;
});
