// One MCP server in two eras and three transports, made with the official SDKs:
//
//   compatible-server.mjs legacy|modern stdio|http|sse DIRECTORY
//
// What it does outside of its process is in DIRECTORY: a call of `wait` is a line in `waits`, and in `cancelled` once it has
// been cancelled; the resource `shared://NAME` is the file `shared.NAME`, whoever writes it.
// Over HTTP it says on stdout where it listens.

import { randomUUID } from 'node:crypto';
import { appendFileSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

const [era, transport, directory] = process.argv.slice(2);
const serverInfo = { name: `compatible-${era}`, version: '1.0.0' };
const capabilities = { tools: {}, resources: { subscribe: true }, logging: {} };
const LEVELS = ['debug', 'info', 'warning', 'error'];
const LOOK_MS = 20;
const STEP_MS = 150;

const say = (text) => ({ content: [{ type: 'text', text }] });
const failure = (code, message) => Object.assign(new Error(message), { code });
const write = (file, name) => appendFileSync(join(directory, file), `${name}\n`);

// ---- what both eras offer ----------------------------------------------------------------------------------------------
// A call is { ask, log, progress, signal }, each as its era has it.

const tools = {
  echo: (args) => say(`echo: ${args.text}`),
  fail: () => ({ ...say('it failed'), isError: true }),
  steps: async (_args, call) => {
    for (const progress of [1, 2, 3]) {
      await call.progress(progress, 3);
      // The 1.x client over HTTP+SSE loses progress that it reads in one piece with the answer.
      await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    }
    return say('three steps');
  },
  log: async (_args, call) => {
    for (const level of LEVELS) await call.log(level, `at ${level}`);
    return say('logged');
  },
  ask: async (args, call) => {
    const requestedSchema = { type: 'object', properties: { colour: { type: 'string' } }, required: ['colour'] };
    const params = { mode: 'form', message: `A colour for ${args.name}?`, requestedSchema };
    const answer = await call.ask('colour', { method: 'elicitation/create', params });
    return say(`${args.name}: ${answer.action} ${answer.content?.colour}`);
  },
  sample: async (args, call) => {
    const messages = [{ role: 'user', content: { type: 'text', text: `A word for ${args.name}` } }];
    const answer = await call.ask('word', { method: 'sampling/createMessage', params: { messages, maxTokens: 10 } });
    return say(`${args.name}: ${answer.content.text} of ${answer.model}`);
  },
  wait: (args, call) =>
    new Promise((_, reject) => {
      call.signal.addEventListener('abort', () => {
        write('cancelled', args.name);
        reject(new Error('cancelled'));
      });
      write('waits', args.name);
    }),
};

// Over HTTP a modern client mirrors this parameter into a header, which a modern server compares; on stdio nobody does.
const inputSchema = { type: 'object', properties: { name: { type: 'string', 'x-mcp-header': 'Name' } } };

const path = (uri) => join(directory, uri.replace('shared://', 'shared.'));

const methods = (notFound) => ({
  'tools/list': () => ({ tools: Object.keys(tools).map((name) => ({ name, inputSchema })) }),
  'tools/call': ({ name, arguments: args }, call) => {
    if (!Object.hasOwn(tools, name)) throw failure(-32602, `Unknown tool: ${name}`);
    return tools[name](args ?? {}, call);
  },
  'resources/list': () => ({ resources: [] }),
  'resources/read': ({ uri }) => {
    try {
      return { contents: [{ uri, text: readFileSync(path(uri), 'utf8') }] };
    } catch {
      throw failure(notFound, `Resource not found: ${uri}`);
    }
  },
});

/** Calls back with the URI of every shared resource that is written from now on. */
function onUpdate(listener) {
  const look = () => {
    const files = readdirSync(directory).filter((file) => file.startsWith('shared.'));
    return new Map(files.map((file) => [file, statSync(join(directory, file)).mtimeMs]));
  };
  let seen = look();
  const timer = setInterval(() => {
    const now = look();
    for (const [file, at] of now) if (seen.get(file) !== at) listener(file.replace('shared.', 'shared://'));
    seen = now;
  }, LOOK_MS);
  return () => clearInterval(timer);
}

async function serve(handle) {
  const web = createServer(handle).listen(0, '127.0.0.1');
  process.stdin.on('end', () => process.exit(0)).resume(); // whoever started it is gone
  web.on('listening', () => console.log(`listening on http://127.0.0.1:${web.address().port}`));
}

// ---- legacy ------------------------------------------------------------------------------------------------------------

async function legacy() {
  const { Server } = await import('@modelcontextprotocol/sdk/server/index.js');
  const mcp = await import('@modelcontextprotocol/sdk/types.js');
  const answers = {
    'elicitation/create': mcp.ElicitResultSchema,
    'sampling/createMessage': mcp.CreateMessageResultSchema,
  };

  /** One server for one connection. */
  function make() {
    const server = new Server(serverInfo, { capabilities });
    const subscribed = new Set();
    let level = 'debug';
    const callOf = (extra) => ({
      ask: (_key, question) => extra.sendRequest(question, answers[question.method]),
      log: async (at, data) => {
        if (LEVELS.indexOf(at) < LEVELS.indexOf(level)) return;
        await extra.sendNotification({ method: 'notifications/message', params: { level: at, data } });
      },
      progress: async (progress, total) => {
        const progressToken = extra._meta?.progressToken;
        await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total } });
      },
      signal: extra.signal,
    });
    const handlers = methods(-32002); // what 2025-11-25 says; later revisions say -32602
    const schemas = [
      mcp.ListToolsRequestSchema,
      mcp.CallToolRequestSchema,
      mcp.ListResourcesRequestSchema,
      mcp.ReadResourceRequestSchema,
    ];
    for (const schema of schemas) {
      const run = handlers[schema.shape.method.value];
      server.setRequestHandler(schema, ({ params }, extra) => run(params ?? {}, callOf(extra)));
    }
    server.setRequestHandler(mcp.SubscribeRequestSchema, ({ params }) => (subscribed.add(params.uri), {}));
    server.setRequestHandler(mcp.UnsubscribeRequestSchema, ({ params }) => (subscribed.delete(params.uri), {}));
    server.setRequestHandler(mcp.SetLevelRequestSchema, ({ params }) => {
      level = params.level;
      return {};
    });
    server.onclose = onUpdate((uri) => {
      if (subscribed.has(uri)) server.sendResourceUpdated({ uri }).catch(() => {});
    });
    return server;
  }

  if (transport === 'stdio') {
    const { StdioServerTransport } = await import('@modelcontextprotocol/sdk/server/stdio.js');
    const server = make();
    await server.connect(new StdioServerTransport());
    process.stdin.on('end', () => server.close());
  } else if (transport === 'http') {
    const { StreamableHTTPServerTransport } = await import('@modelcontextprotocol/sdk/server/streamableHttp.js');
    const sessions = new Map();
    await serve(async (request, response) => {
      let session = sessions.get(request.headers['mcp-session-id']);
      if (!session) {
        session = new StreamableHTTPServerTransport({
          sessionIdGenerator: randomUUID,
          onsessioninitialized: (id) => void sessions.set(id, session),
          onsessionclosed: (id) => void sessions.delete(id),
        });
        await make().connect(session);
      }
      await session.handleRequest(request, response);
    });
  } else {
    const { SSEServerTransport } = await import('@modelcontextprotocol/sdk/server/sse.js');
    const sessions = new Map();
    await serve(async (request, response) => {
      const url = new URL(request.url, 'http://x');
      if (request.method === 'GET' && url.pathname === '/sse') {
        const session = new SSEServerTransport('/message', response);
        sessions.set(session.sessionId, session);
        response.on('close', () => sessions.delete(session.sessionId));
        await make().connect(session);
      } else if (request.method === 'POST' && url.pathname === '/message') {
        const session = sessions.get(url.searchParams.get('sessionId'));
        if (session) await session.handlePostMessage(request, response);
        else response.writeHead(404).end();
      } else {
        response.writeHead(405).end();
      }
    });
  }
}

// ---- modern ------------------------------------------------------------------------------------------------------------

async function modern() {
  const { createMcpHandler, inputRequired, Server } = await import('@modelcontextprotocol/server');
  /** Thrown where the answer to a question is not there yet: the call ends here and is made again with it. */
  const WAITING = Symbol('waiting');

  function make() {
    const server = new Server(serverInfo, { capabilities });
    for (const [method, run] of Object.entries(methods(-32602))) {
      server.setRequestHandler(method, async ({ params = {} }, { mcpReq, http }) => {
        if (method === 'tools/call' && http && http.req.headers.get('mcp-param-name') !== params.arguments.name) {
          throw failure(-32020, 'Mcp-Param-Name is not the name');
        }
        const inputRequests = {};
        const call = {
          ask: async (key, question) => {
            if (mcpReq.inputResponses && Object.hasOwn(mcpReq.inputResponses, key)) return mcpReq.inputResponses[key];
            inputRequests[key] = question;
            throw WAITING;
          },
          log: (level, data) => mcpReq.log(level, data),
          progress: async (progress, total) => {
            const progressToken = mcpReq._meta?.progressToken;
            await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total } });
          },
          signal: mcpReq.signal,
        };
        try {
          return await run(params, call);
        } catch (error) {
          if (error === WAITING) return inputRequired({ inputRequests });
          throw error;
        }
      });
    }
    return server;
  }

  if (transport === 'stdio') {
    const { serveStdio } = await import('@modelcontextprotocol/server/stdio');
    let server;
    serveStdio(() => (server = make()), { legacy: 'reject' });
    // The entry passes these on to the subscriptions of this connection, if there are any that want them.
    const stop = onUpdate((uri) => server?.notification({ method: 'notifications/resources/updated', params: { uri } }));
    process.stdin.on('end', stop);
  } else {
    const { toNodeHandler } = await import('@modelcontextprotocol/node');
    const handler = createMcpHandler(make, { legacy: 'reject' });
    onUpdate((uri) => handler.notify.resourceUpdated(uri));
    await serve(toNodeHandler(handler));
  }
}

await (era === 'legacy' ? legacy() : modern());
