// A legacy (2025-11-25) MCP server on stdio that offers what the official conformance suite asks of a server.
// The names are the suite's; every entry below is one thing that a scenario looks for.
//
// TOLLBRIDGE_SHARED_FILE, if set, is where changes of the tool and prompt lists are kept: outside of the process, so that
// another process of this server, the one behind a listening client, sees them too.

import { appendFileSync, readFileSync, watch, writeFileSync } from 'node:fs';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
const WAV = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQIAAACAgA==';
const RESOURCE_NOT_FOUND = -32002; // what 2025-11-25 says; later revisions say -32602
const STEP_MS = 50;

const pause = () => new Promise((resolve) => setTimeout(resolve, STEP_MS));
const text = (value) => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const say = (value) => ({ content: [text(value)] });
const object = (properties = {}, required = []) => ({ type: 'object', properties, required });
const string = (description) => ({ type: 'string', description });

// ---- questions to the client -----------------------------------------------------------------------------------------
// Asked whether or not the client declared the capability: refusing is the client's or the bridge's part.

const elicit = (ask, message, requestedSchema) =>
  ask({ method: 'elicitation/create', params: { mode: 'form', message, requestedSchema } }, mcp.ElicitResultSchema);
const sample = (ask, prompt, maxTokens = 100) =>
  ask(
    { method: 'sampling/createMessage', params: { messages: [{ role: 'user', content: text(prompt) }], maxTokens } },
    mcp.CreateMessageResultSchema,
  );
const roots = (ask) => ask({ method: 'roots/list' }, mcp.ListRootsResultSchema);

const askName = (ask) => elicit(ask, 'What is your name?', object({ name: string('Your name') }, ['name']));
const askOk = (ask) => elicit(ask, 'Please confirm', object({ ok: { type: 'boolean' } }, ['ok']));

// ---- tools -----------------------------------------------------------------------------------------------------------

/** name → { about, input?, run(args, call) }; call is { ask, notify, progressToken, capabilities }. */
const tools = {
  test_simple_text: { about: 'Text only', run: () => say('This is a simple text response for testing.') },
  test_image_content: { about: 'One image', run: () => ({ content: [image] }) },
  test_audio_content: {
    about: 'One sound',
    run: () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }),
  },
  test_embedded_resource: {
    about: 'One embedded resource',
    run: () => ({
      content: [{ type: 'resource', resource: textResource('test://embedded-resource', 'An embedded resource.') }],
    }),
  },
  test_multiple_content_types: {
    about: 'Text, an image and a resource',
    run: () => ({
      content: [
        text('Multiple content types test:'),
        image,
        {
          type: 'resource',
          resource: jsonResource('test://mixed-content-resource', { test: 'data', value: 123 }),
        },
      ],
    }),
  },
  test_error_handling: {
    about: 'Always fails',
    run: () => ({ ...say('This tool intentionally returns an error for testing'), isError: true }),
  },
  test_tool_with_logging: {
    about: 'Logs three lines',
    run: async (_args, call) => {
      for (const line of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
        await call.log('info', line);
        await pause();
      }
      return say('Logged three lines');
    },
  },
  test_logging_tool: {
    about: 'Logs at every level',
    run: async (_args, call) => {
      for (const level of LEVELS) await call.log(level, `a line at ${level}`);
      return say('Logged at every level');
    },
  },
  test_tool_with_progress: {
    about: 'Reports progress three times',
    run: async (_args, call) => {
      for (const progress of [0, 50, 100]) {
        await call.progress(progress, 100);
        await pause();
      }
      return say('Reported progress');
    },
  },
  test_sampling: {
    about: 'Asks the client for a completion',
    input: object({ prompt: string('What to ask') }, ['prompt']),
    run: async (args, call) => say(`LLM response: ${(await sample(call.ask, args.prompt)).content.text}`),
  },
  test_elicitation: {
    about: 'Asks the user',
    input: object({ message: string('What to ask') }, ['message']),
    run: async (args, call) => {
      const schema = object({ username: string('A name'), email: string('An address') }, ['username', 'email']);
      const answer = await elicit(call.ask, args.message, schema);
      return say(`User response: action=${answer.action}, content=${JSON.stringify(answer.content)}`);
    },
  },
  test_elicitation_sep1034_defaults: {
    about: 'Asks the user, with a default for each field',
    run: async (_args, call) => completed(await elicit(call.ask, 'Please review the defaults', defaultsSchema)),
  },
  test_elicitation_sep1330_enums: {
    about: 'Asks the user to choose, in each of the five forms of a choice',
    run: async (_args, call) => completed(await elicit(call.ask, 'Please choose', choicesSchema)),
  },
  json_schema_2020_12_tool: {
    about: 'Has a schema with much of JSON Schema 2020-12',
    get input() {
      return contactSchema;
    },
    run: (args) => say(`Called with ${JSON.stringify(args)}`),
  },
  test_custom_header: {
    about: 'Has a parameter that modern clients repeat in a header',
    input: object({ region: { ...string('Where'), 'x-mcp-header': 'Region' } }, ['region']),
    run: (args) => say(`In ${args.region}`),
  },

  // What the 2026-07-28 scenarios look for. This server is a legacy one: it asks and waits, and whoever stands in
  // front of it turns that into rounds of input_required.
  test_input_required_result_elicitation: {
    about: 'Asks for a name',
    run: async (_args, call) => say(`Hello, ${(await askName(call.ask)).content?.name}!`),
  },
  test_input_required_result_sampling: {
    about: 'Asks the model',
    run: async (_args, call) => say((await sample(call.ask, 'What is the capital of France?')).content.text),
  },
  test_input_required_result_list_roots: {
    about: 'Asks for the roots',
    run: async (_args, call) => say(JSON.stringify((await roots(call.ask)).roots)),
  },
  test_input_required_result_request_state: {
    about: 'Asks for a yes',
    run: async (_args, call) => say(`state-ok: ${(await askOk(call.ask)).action}`),
  },
  test_input_required_result_tampered_state: {
    about: 'Asks for a yes; the caller then tampers with the state',
    run: async (_args, call) => say(`Confirmed: ${(await askOk(call.ask)).action}`),
  },
  test_input_required_result_multiple_inputs: {
    about: 'Asks three things at once',
    run: async (_args, call) => {
      const [name, greeting, list] = await Promise.all([
        askName(call.ask),
        sample(call.ask, 'Generate a greeting', 50),
        roots(call.ask),
      ]);
      return say(`${greeting.content.text} ${name.content?.name}, ${list.roots.length} roots`);
    },
  },
  test_input_required_result_multi_round: {
    about: 'Asks one thing after another',
    run: async (_args, call) => {
      const name = await elicit(call.ask, 'Step 1: What is your name?', object({ name: string('A name') }, ['name']));
      const color = await elicit(call.ask, 'Step 2: Which color?', object({ color: string('A color') }, ['color']));
      return say(`${name.content?.name} likes ${color.content?.color}`);
    },
  },
  test_input_required_result_capabilities: {
    about: 'Asks only what the client says it can answer',
    run: async (_args, call) => {
      const asked = [];
      if (call.capabilities?.sampling) asked.push(sample(call.ask, 'Say hello', 50));
      if (call.capabilities?.elicitation) asked.push(askName(call.ask));
      return say(`${(await Promise.all(asked)).length} answers`);
    },
  },
  test_missing_capability: {
    about: 'Cannot do without sampling',
    run: async (_args, call) => say((await sample(call.ask, 'Are you there?')).content.text),
  },
  test_streaming_elicitation: {
    about: 'Reports progress, then asks',
    run: async (_args, call) => {
      await call.progress(1, 2);
      return say(`Confirmed: ${(await askOk(call.ask)).action}`);
    },
  },
  test_trigger_tool_change: { about: 'Changes the list of tools', run: () => change('tools') },
  test_trigger_prompt_change: { about: 'Changes the list of prompts', run: () => change('prompts') },
};

const completed = (answer) =>
  say(`Elicitation completed: action=${answer.action}, content=${JSON.stringify(answer.content)}`);

const defaultsSchema = object({
  name: { ...string('Your name'), default: 'John Doe' },
  age: { type: 'integer', description: 'Your age', default: 30 },
  score: { type: 'number', description: 'Your score', default: 95.5 },
  status: { ...string('Your status'), enum: ['active', 'inactive', 'pending'], default: 'active' },
  verified: { type: 'boolean', description: 'Whether that was verified', default: true },
});

const titled = (values) => values.map((value, n) => ({ const: value, title: `Choice ${n + 1}` }));
const choicesSchema = object({
  untitledSingle: { ...string('One'), enum: ['option1', 'option2', 'option3'] },
  titledSingle: { ...string('One, with titles'), oneOf: titled(['value1', 'value2', 'value3']) },
  legacyEnum: { ...string('One, the old way'), enum: ['opt1', 'opt2'], enumNames: ['Option One', 'Option Two'] },
  untitledMulti: {
    type: 'array',
    description: 'Several',
    items: { type: 'string', enum: ['option1', 'option2', 'option3'] },
  },
  titledMulti: {
    type: 'array',
    description: 'Several, with titles',
    items: { anyOf: titled(['value1', 'value2', 'value3']) },
  },
});

const contactSchema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: {
    address: { $anchor: 'addressDef', type: 'object', properties: { street: { type: 'string' }, city: { type: 'string' } } },
  },
  properties: {
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
};

// ---- resources -------------------------------------------------------------------------------------------------------

const textResource = (uri, value) => ({ uri, mimeType: 'text/plain', text: value });
const jsonResource = (uri, value) => ({ uri, mimeType: 'application/json', text: JSON.stringify(value) });

const resources = {
  'test://static-text': {
    about: 'A text',
    read: (uri) => textResource(uri, 'This is the content of the static text resource.'),
  },
  'test://static-binary': { about: 'A picture', read: (uri) => ({ uri, mimeType: 'image/png', blob: PNG }) },
  'test://watched-resource': { about: 'Can be subscribed to', read: (uri) => textResource(uri, 'Watch me.') },
};
const template = { pattern: 'test://template/{id}/data', match: /^test:\/\/template\/([^/]+)\/data$/ };

function readResource(uri) {
  if (resources[uri]) return resources[uri].read(uri);
  const id = template.match.exec(uri)?.[1];
  if (id) return jsonResource(uri, { id, templateTest: true, data: `Data for ID: ${id}` });
  throw Object.assign(new Error('Resource not found'), { code: RESOURCE_NOT_FOUND, data: { uri } });
}

// ---- prompts ---------------------------------------------------------------------------------------------------------

const user = (content) => ({ role: 'user', content });
const argument = (name) => ({ name, description: `The argument ${name}`, required: true });

const prompts = {
  test_simple_prompt: { about: 'No arguments', get: () => [user(text('This is a simple prompt for testing.'))] },
  test_prompt_with_arguments: {
    about: 'Two arguments',
    arguments: [argument('arg1'), argument('arg2')],
    get: ({ arg1, arg2 }) => [user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))],
  },
  test_prompt_with_embedded_resource: {
    about: 'Embeds a resource',
    arguments: [argument('resourceUri')],
    get: ({ resourceUri }) => [
      user({ type: 'resource', resource: textResource(resourceUri, 'Embedded resource content for testing.') }),
      user(text('Please process the embedded resource above.')),
    ],
  },
  test_prompt_with_image: {
    about: 'Holds an image',
    get: () => [user(image), user(text('Please analyze the image above.'))],
  },
  test_input_required_result_prompt: {
    about: 'Asks for a context first',
    get: async (_args, call) => {
      const answer = await elicit(call.ask, 'What context?', object({ context: string('A context') }, ['context']));
      return [user(text(`Use this context: ${answer.content?.context}`))];
    },
  },
};

// ---- changes that other processes of this server see -----------------------------------------------------------------

const sharedFile = process.env.TOLLBRIDGE_SHARED_FILE;
let state = { tools: 0, prompts: 0 };

function readState() {
  try {
    return JSON.parse(readFileSync(sharedFile, 'utf8'));
  } catch {
    return state; // not written yet, or being written: the next event comes
  }
}

async function change(list) {
  if (sharedFile) writeFileSync(sharedFile, JSON.stringify({ ...readState(), [list]: Date.now() }));
  else await announce(list);
  return say(`Changed the list of ${list}`);
}

const announce = (list) => server.notification({ method: `notifications/${list}/list_changed` });

function watchState() {
  appendFileSync(sharedFile, ''); // only a file that is there can be watched
  state = readState();
  watch(sharedFile, () => {
    const before = state;
    state = readState();
    for (const list of ['tools', 'prompts']) if (state[list] !== before[list]) announce(list).catch(() => {});
  }).unref();
}

// ---- the server ------------------------------------------------------------------------------------------------------

const LEVELS = mcp.LoggingLevelSchema.options;
let level = 'debug';

const server = new Server(
  { name: 'conformance-server', version: '1.0.0' },
  {
    capabilities: {
      tools: { listChanged: true },
      prompts: { listChanged: true },
      resources: { subscribe: true },
      logging: {},
      completions: {},
    },
  },
);

/** What a tool or a prompt may do while its request is open; all of it is marked as belonging to that request. */
const callOf = (extra) => ({
  ask: extra.sendRequest,
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

const known = (table, name, kind) => {
  if (Object.hasOwn(table, name)) return table[name];
  throw new mcp.McpError(mcp.ErrorCode.InvalidParams, `Unknown ${kind}: ${name}`);
};

server.setRequestHandler(mcp.ListToolsRequestSchema, () => ({
  tools: Object.entries(tools).map(([name, { about, input }]) => ({
    name,
    description: about,
    inputSchema: input ?? object(),
  })),
}));
server.setRequestHandler(mcp.CallToolRequestSchema, ({ params }, extra) =>
  known(tools, params.name, 'tool').run(params.arguments ?? {}, callOf(extra)),
);

server.setRequestHandler(mcp.ListResourcesRequestSchema, () => ({
  resources: Object.entries(resources).map(([uri, { about }]) => ({ uri, name: uri.slice(7), description: about })),
}));
server.setRequestHandler(mcp.ListResourceTemplatesRequestSchema, () => ({
  resourceTemplates: [{ uriTemplate: template.pattern, name: 'template', description: 'Data by id' }],
}));
server.setRequestHandler(mcp.ReadResourceRequestSchema, ({ params }) => ({ contents: [readResource(params.uri)] }));
server.setRequestHandler(mcp.SubscribeRequestSchema, ({ params }) => (readResource(params.uri), {}));
server.setRequestHandler(mcp.UnsubscribeRequestSchema, () => ({}));

server.setRequestHandler(mcp.ListPromptsRequestSchema, () => ({
  prompts: Object.entries(prompts).map(([name, { about, arguments: list }]) => ({
    name,
    description: about,
    ...(list && { arguments: list }),
  })),
}));
server.setRequestHandler(mcp.GetPromptRequestSchema, async ({ params }, extra) => ({
  messages: await known(prompts, params.name, 'prompt').get(params.arguments ?? {}, callOf(extra)),
}));

server.setRequestHandler(mcp.CompleteRequestSchema, ({ params }) => {
  const values = ['paris', 'park', 'party'].filter((value) => value.startsWith(params.argument.value));
  return { completion: { values, total: values.length, hasMore: false } };
});
server.setRequestHandler(mcp.SetLevelRequestSchema, ({ params }) => {
  level = params.level;
  return {};
});

if (sharedFile) watchState();
await server.connect(new StdioServerTransport());
