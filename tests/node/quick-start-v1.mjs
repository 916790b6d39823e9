// A server as the documentation of the TypeScript SDK 1.x has it: over stdio, or with `--http` over Streamable HTTP with
// sessions. What it asks and logs belongs to no request, and so goes out on the GET stream over HTTP.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const text = (text) => ({ content: [{ type: 'text', text }] });

function makeServer() {
  const mcp = new McpServer({ name: 'quick-start', version: '1' }, { capabilities: { logging: {} } });
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
  mcp.registerTool('log', { description: 'Writes a log line' }, async () => {
    await mcp.server.sendLoggingMessage({ level: 'error', data: 'a line' });
    return text('logged');
  });
  return mcp;
}

if (process.argv.includes('--http')) {
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
  }).listen(0, '127.0.0.1');
  process.stdin.on('end', () => process.exit(0)).resume(); // whoever started it is gone
  web.on('listening', () => console.log(`listening on http://127.0.0.1:${web.address().port}`));
} else {
  await makeServer().connect(new StdioServerTransport());
}
