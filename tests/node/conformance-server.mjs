// A legacy (2025-11-25) MCP server that offers what the official conformance suite asks of a server, as
// conformance-fixture.mjs has it: on stdio, or with `--http PORT` over Streamable HTTP with sessions.
//
// `--before-handshake end` or `silent` is what it does, on stdio, if something else comes before `initialize`: rmcp 1.x
// ends. By itself the SDK that this is made with answers -32601.
//
// It asks its client and waits: whoever stands in front of it for a modern client turns that into rounds of input_required.

import { randomUUID } from 'node:crypto';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';
import { capabilities, handlers, httpPort, LEVELS, listen, onChange, serverInfo } from './conformance-fixture.mjs';

const handle = handlers(-32002); // what 2025-11-25 says; later revisions say -32602
const ANSWERS = {
  'elicitation/create': mcp.ElicitResultSchema,
  'sampling/createMessage': mcp.CreateMessageResultSchema,
  'roots/list': mcp.ListRootsResultSchema,
};

/** One server for one connection. */
function makeServer() {
  const server = new Server(serverInfo, { capabilities });
  let level = 'debug';

  /** What a tool or a prompt may do while its request is open; all of it is marked as belonging to that request. */
  const callOf = (extra) => ({
    ask: (_key, question) => extra.sendRequest(question, ANSWERS[question.method]),
    capabilities: server.getClientCapabilities(),
    log: async (at, data) => {
      if (LEVELS.indexOf(at) < LEVELS.indexOf(level)) return;
      await extra.sendNotification({ method: 'notifications/message', params: { level: at, logger: 'conformance', data } });
    },
    progress: async (progress, total) => {
      const progressToken = extra._meta?.progressToken;
      if (progressToken === undefined) return;
      await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
  });

  for (const schema of [
    mcp.ListToolsRequestSchema,
    mcp.CallToolRequestSchema,
    mcp.ListResourcesRequestSchema,
    mcp.ListResourceTemplatesRequestSchema,
    mcp.ReadResourceRequestSchema,
    mcp.ListPromptsRequestSchema,
    mcp.GetPromptRequestSchema,
    mcp.CompleteRequestSchema,
  ]) {
    const method = handle[schema.shape.method.value];
    server.setRequestHandler(schema, ({ params }, extra) => method(params ?? {}, callOf(extra)));
  }
  server.setRequestHandler(mcp.SubscribeRequestSchema, ({ params }) => (handle['resources/read'](params), {}));
  server.setRequestHandler(mcp.UnsubscribeRequestSchema, () => ({}));
  server.setRequestHandler(mcp.SetLevelRequestSchema, ({ params }) => {
    level = params.level;
    return {};
  });

  const unwatch = onChange((list) => server.notification({ method: `notifications/${list}/list_changed` }).catch(() => {}));
  server.onclose = unwatch;
  return server;
}

/** Lets the server hear nothing before `initialize`. */
function guard(transport, otherwise) {
  const hear = transport.onmessage;
  transport.onmessage = (message, extra) => {
    if (message.method === 'initialize') {
      transport.onmessage = hear;
      hear(message, extra);
    } else if (otherwise === 'end') {
      process.exit(1);
    }
  };
}

const port = httpPort();
if (port === undefined) {
  const { StdioServerTransport } = await import('@modelcontextprotocol/sdk/server/stdio.js');
  const transport = new StdioServerTransport();
  await makeServer().connect(transport);
  const at = process.argv.indexOf('--before-handshake');
  if (at > 0) guard(transport, process.argv[at + 1]);
} else {
  const { StreamableHTTPServerTransport } = await import('@modelcontextprotocol/sdk/server/streamableHttp.js');
  const sessions = new Map();
  await listen(port, async (request, response) => {
    const id = request.headers['mcp-session-id'];
    let transport = sessions.get(id);
    if (id && !transport) {
      response.writeHead(404).end();
      return;
    }
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (made) => void sessions.set(made, transport),
        onsessionclosed: (closed) => void sessions.delete(closed),
      });
      await makeServer().connect(transport);
    }
    await transport.handleRequest(request, response);
  });
}
