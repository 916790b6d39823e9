// What every client of the matrix does, once each: see tests/compatibility/matrix.rs, which judges it.
//
// The task comes as one JSON argument: { url | command, trace, note, only, patience, soon }. What came of each operation goes to stdout as
// one line of JSON: "ok", or in a few words what came instead. An SDK's client is here an object with listTools(), call(),
// wantLogs(), subscribe(), close() and logs, as in client-v1.mjs.

import { existsSync, writeFileSync } from 'node:fs';

export const task = JSON.parse(process.argv[2]);
export const about = { name: 'matrix', version: '1.0.0' };
export const capabilities = { elicitation: {}, sampling: {}, roots: {} };
export const sampled = () => ({ role: 'assistant', model: 'm', content: { type: 'text', text: 'words' } });
export const rooted = () => ({ roots: [{ uri: ROOT, name: 'work' }] });
export const elicited = ({ params }) => ({
  action: 'accept',
  content: Object.fromEntries(Object.keys(params.requestedSchema.properties).map((name) => [name, 'Ada'])),
});

const PATIENCE_MS = task.patience * 1000;
const SOON_MS = task.soon * 1000;
const LOOK_MS = 20;
const ROOT = 'file:///work';
const uri = `file://${task.note}`;
const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref());

/** Looks again and again until it is so; fails if it is not so soon: the answer has been there before it, or is on its way. */
async function within(isSo, otherwise, ms = SOON_MS) {
  const deadline = Date.now() + ms;
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error(otherwise());
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

function expect(wanted, got) {
  const [one, other] = [wanted, got].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(other.slice(0, 200));
}

export const operations = {
  async list(client) {
    const tools = await client.listTools();
    if (!tools.includes('echo')) throw new Error(tools.join(' '));
  },
  async call(client) {
    expect([false, 'h\u00e4llo'], await client.call('echo', { text: 'h\u00e4llo' }));
  },
  async progress(client) {
    const steps = [];
    const onprogress = ({ progress, total }) => {
      if (steps.push([progress, total]) === 3) writeFileSync(`${task.trace}.seen`, '');
    };
    const answer = await client.call('steps', { trace: task.trace }, { onprogress });
    expect([[false, 'three steps'], [[1, 3], [2, 3], [3, 3]]], [answer, steps]);
  },
  async log(client) {
    const params = await client.wantLogs();
    expect([false, 'logged'], await client.call('log', {}, {}, params));
    await within(() => JSON.stringify(client.logs).includes('a line'), () => `logs ${JSON.stringify(client.logs)}`);
  },
  async cancel(client) {
    const abort = new AbortController();
    const waiting = client.call('wait', { trace: task.trace }, { signal: abort.signal }).then(
      () => 'an answer',
      () => 'no answer',
    );
    await within(() => existsSync(`${task.trace}.waits`), () => 'it is not called', PATIENCE_MS);
    abort.abort();
    expect('no answer', await waiting);
    await within(() => existsSync(`${task.trace}.cancelled`), () => 'the tool does not see it');
  },
  async elicitation(client) {
    const [isError, text] = await client.call('ask', {});
    expect([false, 'hello Ada'], [isError, text.split(',')[0]]);
  },
  async sampling(client) {
    expect([false, 'it said words'], await client.call('sample', {}));
  },
  async roots(client) {
    expect([false, ROOT], await client.call('roots', {}));
  },
  async subscribe(client) {
    const updated = [];
    await client.subscribe(uri, (uri) => updated.push(uri));
    // Who listens sees changes from when it began to, which nobody is told: it changes until one is seen.
    const timer = setInterval(() => writeFileSync(task.note, `${Date.now()}`), 200);
    try {
      await within(() => updated.length > 0, () => 'no update', PATIENCE_MS);
    } finally {
      clearInterval(timer);
    }
    expect([uri], [...new Set(updated)]);
  },
  async error(client) {
    const [isError, text] = await client.call('fail', {});
    if (!isError || !text.includes('it failed')) throw new Error(`${isError}, ${text.slice(0, 200)}`);
  },
  async large(client) {
    const [isError, text] = await client.call('large', {});
    expect([false, 2 << 20], [isError, text.length]);
  },
  async crash(client) {
    await client.call('crash', {}).catch(() => {}); // in whatever way
    await within(() => existsSync(`${task.trace}.back`), () => 'the server is not started again', PATIENCE_MS);
    await operations.call(client);
  },
};

const words = (error) => `${error.name}: ${error.message}`.split('\n')[0].slice(0, 200);
const timely = (promise) => Promise.race([promise, later(PATIENCE_MS).then(() => Promise.reject(new Error('no end')))]);

/** Has the client do each operation, with a new connection after each that went wrong. `connect()` is the connection. */
export async function run(connect) {
  const seen = {};
  const left = Object.keys(operations).filter((name) => task.only.includes(name));
  while (left.length > 0) {
    let client, name;
    try {
      client = await timely(connect());
      seen.connect = 'ok';
      while (left.length > 0) {
        name = left.shift();
        await timely(operations[name](client));
        seen[name] = 'ok';
      }
    } catch (error) {
      seen[name ?? 'connect'] = words(error);
      if (!name) break;
    }
    await Promise.race([client.close(), later(SOON_MS)]).catch(() => {});
  }
  process.stdout.write(`${JSON.stringify(seen)}\n`, () => process.exit(0));
}
