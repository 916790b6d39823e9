// A server as the documentation of the TypeScript SDK 1.x has it: over stdio, or with a port over Streamable HTTP with
// sessions. What it asks and logs belongs to no request, and so goes out on the GET stream over HTTP. What each tool does:
// tests/compatibility/matrix.rs.
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { SubscribeRequestSchema, UnsubscribeRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { z } from 'zod';
import { onChange, until } from './changes.mjs';

const [port, note] = process.argv.slice(2);
const text = (text) => ({ content: [{ type: 'text', text }] });
const uri = `file://${note}`;

function makeServer() {
  const mcp = new McpServer({ name: 'quick-start', version: '1' }, { capabilities: { logging: {} } });
  mcp.registerTool('echo', { description: 'The text again', inputSchema: { text: z.string() } }, async (args) =>
    text(args.text),
  );
  mcp.registerTool(
    'steps',
    { description: 'Three steps, each reported', inputSchema: { trace: z.string() } },
    async ({ trace }, extra) => {
      const progressToken = extra._meta?.progressToken;
      for (const progress of [1, 2, 3]) {
        const params = { progressToken, progress, total: 3 };
        await extra.sendNotification({ method: 'notifications/progress', params });
      }
      await until(`${trace}.seen`);
      return text('three steps');
    },
  );
  mcp.registerTool('log', { description: 'Writes a log line' }, async () => {
    await mcp.server.sendLoggingMessage({ level: 'error', data: 'a line' });
    return text('logged');
  });
  mcp.registerTool(
    'wait',
    { description: 'Waits until it is cancelled', inputSchema: { trace: z.string() } },
    ({ trace }, { signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          writeFileSync(`${trace}.cancelled`, '');
          reject(signal.reason);
        });
        writeFileSync(`${trace}.waits`, '');
      }),
  );
  mcp.registerTool('ask', { description: 'Asks in the middle of the call' }, async () => {
    const requestedSchema = { type: 'object', properties: { name: { type: 'string' } } };
    const answer = await mcp.server.elicitInput({ message: 'Who is it?', requestedSchema });
    return text(`hello ${answer.content?.name}, from ${process.pid}`);
  });
  mcp.registerTool('sample', { description: "Has the client's model say something" }, async () => {
    const messages = [{ role: 'user', content: { type: 'text', text: 'Say something.' } }];
    const answer = await mcp.server.createMessage({ messages, maxTokens: 10 });
    return text(`it said ${answer.content.text}`);
  });
  mcp.registerTool('roots', { description: 'Asks where the client works' }, async () => {
    const { roots } = await mcp.server.listRoots();
    return text(roots.map(({ uri }) => uri).join(' '));
  });
  mcp.registerTool('fail', { description: 'Fails' }, async () => {
    throw new Error('it failed');
  });
  mcp.registerTool('large', { description: 'Two mebibytes' }, async () => text('x'.repeat(2 << 20)));
  mcp.registerTool('crash', { description: 'Ends the server in the middle of the call' }, () => process.exit(1));

  // Subscriptions are the part that McpServer leaves to the server below it.
  const subscribed = new Set();
  mcp.registerResource('note', uri, {}, async () => ({ contents: [{ uri, text: 'a note' }] }));
  mcp.server.registerCapabilities({ resources: { subscribe: true } });
  mcp.server.setRequestHandler(SubscribeRequestSchema, ({ params }) => (subscribed.add(params.uri), {}));
  mcp.server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => (subscribed.delete(params.uri), {}));
  mcp.server.onclose = onChange(note, () => {
    if (subscribed.has(uri)) mcp.server.sendResourceUpdated({ uri }).catch(() => {});
  });
  return mcp;
}

if (port && port !== 'stdio') {
  const sessions = new Map();
  const web = createServer(async (request, response) => {
    let transport = sessions.get(request.headers['mcp-session-id']);
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => void sessions.set(id, transport),
        onsessionclosed: (id) => void sessions.delete(id),
      });
      await makeServer().connect(transport);
    }
    await transport.handleRequest(request, response);
  });
  web.listen(Number(port), '127.0.0.1');
} else {
  const mcp = makeServer();
  await mcp.connect(new StdioServerTransport());
  process.stdin.on('end', () => mcp.close());
}
