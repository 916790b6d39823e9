// The MCP Inspector's command line, which connects anew for each method and shows a result and nothing else. The task and
// the answer: matrix.mjs.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { operations, run, task } from './matrix.mjs';

const inspector = fileURLToPath(new URL('node_modules/@modelcontextprotocol/inspector/clients', import.meta.url));
const cli = join(inspector, 'launcher/build/index.js');
const target = task.url ? [task.url] : task.command;

async function ask(method, ...options) {
  const program = [cli, '--cli', '--quiet', '--method', method, ...options, '--', ...target];
  // It ends with an error where a tool says that it failed, too.
  const { stdout } = await promisify(execFile)(process.execPath, program, { maxBuffer: 8 << 20 }).catch((failure) => {
    if (failure.stdout) return failure;
    throw new Error(failure.stderr);
  });
  return JSON.parse(stdout);
}

for (const name of ['progress', 'log', 'cancel', 'elicitation', 'sampling', 'roots', 'subscribe']) {
  operations[name] = () => Promise.reject(new Error('it has none'));
}
await run(async () => ({
  listTools: async () => (await ask('tools/list')).tools.map(({ name }) => name),
  call: async (name, args) => {
    const pairs = Object.entries(args).map(([name, value]) => `${name}=${value}`);
    const options = pairs.length > 0 ? ['--tool-arg', ...pairs] : [];
    const result = await ask('tools/call', '--tool-name', name, ...options);
    return [result.isError ?? false, result.content[0].text];
  },
  close: async () => {},
}));
