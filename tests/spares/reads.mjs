// An MCP server that reads its token in the way that its first argument names, before it listens. What the other argument
// names is made once it is about to. Every tool says the hash of the token.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { env } from 'node:process';
import { createInterface } from 'node:readline';
import { Worker } from 'node:worker_threads';

const [how, reached] = process.argv.slice(2);

/// As the package `dotenv` does: what is there already stays.
const dotenv = (variables) => {
  for (const [name, value] of Object.entries(variables)) {
    if (!Object.prototype.hasOwnProperty.call(process.env, name)) process.env[name] = value;
  }
  return process.env.TOKEN;
};

/// What a program finds open that is not given the environment.
const openBelow = () =>
  execFileSync('/bin/ls', ['-l', '/proc/self/fd'], { env: {}, stdio: ['ignore', 'pipe', 'ignore'] }).toString();

const ways = {
  property: () => process.env.TOKEN,
  imported: () => env.TOKEN,
  in: () => ('TOKEN' in process.env && process.env.TOKEN) || 'absent',
  spread: () => ({ ...process.env }).TOKEN,
  entries: () => Object.fromEntries(Object.entries(process.env)).TOKEN,
  descriptor: () => Object.getOwnPropertyDescriptor(process.env, 'TOKEN').value,
  dotenv: () => dotenv({ TOKEN: 'of the file', NEW: '1' }),
  worker: () =>
    new Promise((resolve) => {
      const worker = new Worker('require("worker_threads").parentPort.postMessage(process.env.TOKEN)', { eval: true });
      worker.on('message', resolve);
    }),
  child: () => execFileSync('/bin/sh', ['-c', 'printf %s "$TOKEN"']).toString(),
  writes: () => {
    try {
      writeSync(3, 'x'.repeat(1000));
    } catch (error) {
      // The bridge has said all, and does not listen.
      if (error.code !== 'EPIPE') throw error;
    }
    return process.env.TOKEN;
  },
  inherited: () => (openBelow().includes(`socket:[${fstatSync(3).ino}]`) ? 'inherited' : process.env.TOKEN),
  closes: () => {
    closeSync(3);
    openSync('/etc/passwd');
    return process.env.TOKEN;
  },
  large: () => process.env.FIRST + process.env.SECOND + process.env.TOKEN,
  dies: () => {
    if (process.env.TOKEN && !existsSync(`${reached}.once`)) {
      writeFileSync(`${reached}.once`, '');
      process.exit(3);
    }
    return process.env.TOKEN;
  },
  later: () => undefined,
};

if (!('TOKEN' in process.env) || !Object.keys(process.env).includes('TOKEN')) throw new Error('it has no name');
writeFileSync(reached, '');
const token = await ways[how]();
const now = () => (how === 'later' ? process.env.TOKEN : (token ?? 'absent'));
const results = {
  initialize: () => ({ protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'reads', version: '1' } }),
  'tools/list': () => ({ tools: [{ name: 'whoami', inputSchema: { type: 'object' } }] }),
  'tools/call': () => {
    const text = createHash('sha256').update(now()).digest('hex');
    return { content: [{ type: 'text', text }] };
  },
};
createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined || params?.name === 'waits') return;
  const result = results[method]?.();
  const answer = result ? { result } : { error: { code: -32601, message: 'there is no such method' } };
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...answer })}\n`);
});
