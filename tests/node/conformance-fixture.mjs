// What the two conformance servers offer, legacy and modern: the names are the suite's, and every entry below is one thing
// that a scenario looks for. How a question reaches the client is the server's part, and so is the transport.
//
// TOLLBRIDGE_SHARED_FILE, if set, is where changes of the tool and prompt lists are kept: outside of the process, so that
// another process of the server, the one behind a listening client, sees them too.

import { appendFileSync, readFileSync, watch, writeFileSync } from 'node:fs';

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
const WAV = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQIAAACAgA==';
const STEP_MS = 50;
export const LEVELS = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency'];

const pause = () => new Promise((resolve) => setTimeout(resolve, STEP_MS));
const text = (value) => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
export const say = (value) => ({ content: [text(value)] });
export const object = (properties = {}, required = []) => ({ type: 'object', properties, required });
export const string = (description) => ({ type: 'string', description });

// ---- questions to the client -----------------------------------------------------------------------------------------
// ask(key, { method, params }) gives the answer. Asked whether or not the client declared the capability: refusing is the
// client's, the server's or the bridge's part. Only a modern server shows the keys, and one scenario insists on `user_name`.

const elicit = (ask, key, message, requestedSchema) =>
  ask(key, { method: 'elicitation/create', params: { mode: 'form', message, requestedSchema } });
const sample = (ask, key, prompt, maxTokens = 100) =>
  ask(key, {
    method: 'sampling/createMessage',
    params: { messages: [{ role: 'user', content: text(prompt) }], maxTokens },
  });
const roots = (ask) => ask('client_roots', { method: 'roots/list', params: {} });

export const askName = (ask) => elicit(ask, 'user_name', 'What is your name?', object({ name: string('Your name') }, ['name']));
const askOk = (ask) => elicit(ask, 'confirm', 'Please confirm', object({ ok: { type: 'boolean' } }, ['ok']));

// ---- tools -----------------------------------------------------------------------------------------------------------

/** name → { about, input?, run(args, call) }; call is { ask, log, progress, capabilities }. */
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
    run: async (args, call) => say(`LLM response: ${(await sample(call.ask, 'completion', args.prompt)).content.text}`),
  },
  test_elicitation: {
    about: 'Asks the user',
    input: object({ message: string('What to ask') }, ['message']),
    run: async (args, call) => {
      const schema = object({ username: string('A name'), email: string('An address') }, ['username', 'email']);
      const answer = await elicit(call.ask, 'answer', args.message, schema);
      return say(`User response: action=${answer.action}, content=${JSON.stringify(answer.content)}`);
    },
  },
  test_elicitation_sep1034_defaults: {
    about: 'Asks the user, with a default for each field',
    run: async (_args, call) => completed(await elicit(call.ask, 'review', 'Please review the defaults', defaultsSchema)),
  },
  test_elicitation_sep1330_enums: {
    about: 'Asks the user to choose, in each of the five forms of a choice',
    run: async (_args, call) => completed(await elicit(call.ask, 'choice', 'Please choose', choicesSchema)),
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

  // What the 2026-07-28 scenarios look for.
  test_input_required_result_elicitation: {
    about: 'Asks for a name',
    run: async (_args, call) => say(`Hello, ${(await askName(call.ask)).content?.name}!`),
  },
  test_input_required_result_sampling: {
    about: 'Asks the model',
    run: async (_args, call) => say((await sample(call.ask, 'capital_question', 'What is the capital of France?')).content.text),
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
        sample(call.ask, 'greeting', 'Generate a greeting', 50),
        roots(call.ask),
      ]);
      return say(`${greeting.content.text} ${name.content?.name}, ${list.roots.length} roots`);
    },
  },
  test_input_required_result_multi_round: {
    about: 'Asks one thing after another',
    run: async (_args, call) => {
      const name = await elicit(call.ask, 'step1', 'Step 1: What is your name?', object({ name: string('A name') }, ['name']));
      const color = await elicit(call.ask, 'step2', 'Step 2: Which color?', object({ color: string('A color') }, ['color']));
      return say(`${name.content?.name} likes ${color.content?.color}`);
    },
  },
  test_input_required_result_capabilities: {
    about: 'Asks only what the client says it can answer',
    run: async (_args, call) => {
      const asked = [];
      if (call.capabilities?.sampling) asked.push(sample(call.ask, 'hello', 'Say hello', 50));
      if (call.capabilities?.elicitation) asked.push(askName(call.ask));
      return say(`${(await Promise.all(asked)).length} answers`);
    },
  },
  test_missing_capability: {
    about: 'Cannot do without sampling',
    run: async (_args, call) => say((await sample(call.ask, 'there', 'Are you there?')).content.text),
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

function readResource(uri, notFoundCode) {
  if (resources[uri]) return resources[uri].read(uri);
  const id = template.match.exec(uri)?.[1];
  if (id) return jsonResource(uri, { id, templateTest: true, data: `Data for ID: ${id}` });
  throw Object.assign(new Error('Resource not found'), { code: notFoundCode, data: { uri } });
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
      const answer = await elicit(call.ask, 'user_context', 'What context?', object({ context: string('A context') }, ['context']));
      return [user(text(`Use this context: ${answer.content?.context}`))];
    },
  },
};

// ---- changes that other processes of this server see -----------------------------------------------------------------

const sharedFile = process.env.TOLLBRIDGE_SHARED_FILE;
const listeners = new Set();
let state = { tools: 0, prompts: 0 };

/** Calls listener('tools' | 'prompts') when that list has changed; returns what ends it. */
export function onChange(listener) {
  if (sharedFile) watchState();
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function readState() {
  try {
    return JSON.parse(readFileSync(sharedFile, 'utf8'));
  } catch {
    return state; // not written yet, or being written: the next event comes
  }
}

function change(list) {
  if (sharedFile) writeFileSync(sharedFile, JSON.stringify({ ...readState(), [list]: Date.now() }));
  else announce(list);
  return say(`Changed the list of ${list}`);
}

function announce(list) {
  for (const listener of listeners) listener(list);
}

let watching = false;
function watchState() {
  if (watching) return;
  watching = true;
  appendFileSync(sharedFile, ''); // only a file that is there can be watched
  state = readState();
  watch(sharedFile, () => {
    const before = state;
    state = readState();
    for (const list of ['tools', 'prompts']) if (state[list] !== before[list]) announce(list);
  }).unref();
}

// ---- the requests ----------------------------------------------------------------------------------------------------

export const serverInfo = { name: 'conformance-server', version: '1.0.0' };
export const capabilities = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { subscribe: true },
  logging: {},
  completions: {},
};

const known = (table, name, kind) => {
  if (Object.hasOwn(table, name)) return table[name];
  throw Object.assign(new Error(`Unknown ${kind}: ${name}`), { code: -32602 });
};

/** method → (params, call) => result, for a revision that says notFoundCode of a resource that is not there. */
export const handlers = (notFoundCode, moreTools = {}) => ({
  'tools/list': () => ({
    tools: Object.entries({ ...tools, ...moreTools }).map(([name, { about, input }]) => ({
      name,
      description: about,
      inputSchema: input ?? object(),
    })),
  }),
  'tools/call': (params, call) => known({ ...tools, ...moreTools }, params.name, 'tool').run(params.arguments ?? {}, call),

  'resources/list': () => ({
    resources: Object.entries(resources).map(([uri, { about }]) => ({ uri, name: uri.slice(7), description: about })),
  }),
  'resources/templates/list': () => ({
    resourceTemplates: [{ uriTemplate: template.pattern, name: 'template', description: 'Data by id' }],
  }),
  'resources/read': ({ uri }) => ({ contents: [readResource(uri, notFoundCode)] }),

  'prompts/list': () => ({
    prompts: Object.entries(prompts).map(([name, { about, arguments: list }]) => ({
      name,
      description: about,
      ...(list && { arguments: list }),
    })),
  }),
  'prompts/get': async (params, call) => ({
    messages: await known(prompts, params.name, 'prompt').get(params.arguments ?? {}, call),
  }),

  'completion/complete': ({ argument }) => {
    const values = ['paris', 'park', 'party'].filter((value) => value.startsWith(argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  },
});

// ---- over HTTP -------------------------------------------------------------------------------------------------------

/** The port of `--http PORT` (0: any), or undefined: on stdio. */
export function httpPort() {
  const at = process.argv.indexOf('--http');
  return at < 0 ? undefined : Number(process.argv[at + 1]);
}

/** Serves /mcp on the loopback interface, and says on stdout where. */
export async function listen(port, handle) {
  const { createServer } = await import('node:http');
  const web = createServer((request, response) => {
    if (new URL(request.url, 'http://x').pathname === '/mcp') handle(request, response);
    else response.writeHead(404).end();
  });
  web.listen(port, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${web.address().port}/mcp`));
}
