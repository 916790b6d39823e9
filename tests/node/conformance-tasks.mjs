// The tasks extension (SEP-2663) of the modern conformance server: the tools that the suite asks for, and what is asked
// about their tasks.
//
// TOLLBRIDGE_TASKS says where tasks are kept: `memory`, so that only the process that began one knows it, or a directory, so
// that every process of the server does. Unset: there are none. What a task has come to follows from its record and the
// time, so that it goes on while no process of the server runs.

import { randomUUID } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { askName, object, say, string } from './conformance-fixture.mjs';

export const EXTENSION = 'io.modelcontextprotocol/tasks';
export const place = process.env.TOLLBRIDGE_TASKS;

const POLL_MS = 100;
const TTL_MS = 60_000;

// ---- records ---------------------------------------------------------------------------------------------------------
// { id, began, changed, ms, ending, asks, answers, cancelled }: from `began` on it works for `ms`, once everything in `asks`
// is in `answers`, and ends as `ending` says.

const inMemory = new Map();

function keep(record) {
  if (place === 'memory') return void inMemory.set(record.id, record);
  const file = join(place, record.id);
  writeFileSync(`${file}.${process.pid}`, JSON.stringify(record));
  renameSync(`${file}.${process.pid}`, file);
}

function find(id) {
  try {
    const record = place === 'memory' ? inMemory.get(id) : /^[0-9a-f-]{36}$/.test(id) && JSON.parse(readFileSync(join(place, id), 'utf8'));
    if (record) return record;
  } catch {
    // no such file
  }
  throw fault(-32602, 'Failed to retrieve task: Task not found');
}

const fault = (code, message, data) => Object.assign(new Error(message), { code, data });

const open = (record) => Object.entries(record.asks).filter(([key]) => !Object.hasOwn(record.answers, key));

function status(record) {
  if (record.cancelled) return { status: 'cancelled' };
  const asked = open(record);
  if (asked.length > 0) return { status: 'input_required', inputRequests: Object.fromEntries(asked) };
  if (Date.now() < record.changed + record.ms) return { status: 'working' };
  const { error, result } = record.ending;
  return error ? { status: 'failed', statusMessage: error.message, error } : { status: 'completed', result };
}

const told = (record) => ({
  taskId: record.id,
  createdAt: new Date(record.began).toISOString(),
  lastUpdatedAt: new Date(record.changed).toISOString(),
  ttlMs: TTL_MS,
  pollIntervalMs: POLL_MS,
});

// ---- tools -----------------------------------------------------------------------------------------------------------

const takesTasks = (call) => call.capabilities?.extensions?.[EXTENSION] !== undefined;

/** Answers a call with a task, which works for so long and then ends so. */
function begin(ms, ending, asks = {}) {
  const now = Date.now();
  const record = { id: randomUUID(), began: now, changed: now, ms, ending, asks, answers: {} };
  keep(record);
  return { resultType: 'task', ...told(record), status: status(record).status };
}

function needsTasks(call) {
  const requiredCapabilities = { extensions: { [EXTENSION]: {} } };
  if (!takesTasks(call)) throw fault(-32021, 'Missing required client capability', { requiredCapabilities });
}

const confirm = (message) => ({
  method: 'elicitation/create',
  params: { mode: 'form', message, requestedSchema: object({ confirm: { type: 'boolean' } }) },
});

/** name → { about, input?, run(args, call) }, as the other tools. */
export const tools = {
  greet: {
    about: 'Greets at once',
    input: object({ name: string('Whom') }, ['name']),
    run: (args) => say(`Hello, ${args.name}!`),
  },
  slow_compute: {
    about: 'Computes for some seconds',
    input: object({ seconds: { type: 'number' }, label: string('What') }),
    run: async (args, call) => {
      const ms = (args.seconds ?? 0) * 1000;
      const result = say(`Computed ${args.label}`);
      if (takesTasks(call)) return begin(ms, { result });
      await new Promise((resolve) => setTimeout(resolve, ms));
      return result;
    },
  },
  failing_job: {
    about: 'Fails as tools fail, a second later',
    run: (_args, call) => {
      needsTasks(call);
      return begin(1000, { result: { ...say('The job has failed'), isError: true } });
    },
  },
  protocol_error_job: {
    about: 'Fails as requests fail',
    run: (_args, call) => {
      needsTasks(call);
      return begin(200, { error: { code: -32603, message: 'The job has broken off' } });
    },
  },
  confirm_delete: {
    about: 'Deletes once that is confirmed',
    input: object({ filename: string('What') }),
    run: (args, call) => {
      needsTasks(call);
      return begin(0, { result: say(`Deleted ${args.filename}`) }, { [randomUUID()]: confirm(`Delete ${args.filename}?`) });
    },
  },
  multi_input: {
    about: 'Asks two things at once',
    run: (_args, call) => {
      needsTasks(call);
      const asks = { [randomUUID()]: confirm('The first?'), [randomUUID()]: confirm('The second?') };
      return begin(0, { result: say('Both are confirmed') }, asks);
    },
  },
  test_tool_with_task: {
    about: 'Asks for a name, then works at a greeting',
    run: async (_args, call) => {
      needsTasks(call);
      const { content } = await askName(call.ask);
      return begin(300, { result: say(`Hello, ${content?.name}!`) });
    },
  },
};

// ---- what is asked about tasks ---------------------------------------------------------------------------------------

/** method → (params, answers) => result. */
export const methods = {
  'tasks/get': ({ taskId }) => {
    const record = find(taskId);
    return { ...told(record), ...status(record) };
  },
  'tasks/update': ({ taskId }, answers) => {
    const record = find(taskId);
    const asked = open(record).map(([key]) => key);
    for (const key of asked.filter((key) => Object.hasOwn(answers, key))) record.answers[key] = answers[key];
    if (asked.length > 0 && open(record).length === 0) record.changed = Date.now();
    keep(record);
    return {};
  },
  'tasks/cancel': ({ taskId }) => {
    const record = find(taskId);
    if (['working', 'input_required'].includes(status(record).status)) keep({ ...record, cancelled: true, changed: Date.now() });
    return {};
  },
};
