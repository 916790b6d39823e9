// The client that the conformance suite tests, role "client", scenarios `auth/*`: a bridge with `"oauth": true` in front of
// the scenario's server, a person who signs in on its pages, and a client that calls a tool. The suite appends the URL of the
// server to `conformance-oauth.mjs`; TOLLBRIDGE names the program.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const url = process.argv.at(-1);
const scenario = process.env.MCP_CONFORMANCE_SCENARIO ?? '';
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const program = process.env.TOLLBRIDGE ?? 'target/debug/tollbridge';
// As often as somebody signs in before they give up.
const SIGN_INS = 3;

const home = mkdtempSync(join(tmpdir(), 'tollbridge-conformance-'));
const key = join(home, 'k1.key');
execFileSync(program, ['keygen', '--out', key]);
const publicUrl = scenario.includes('cimd') ? 'https://bridge.example' : 'http://127.0.0.1:7777';
const oauth = { allowHosts: ['localhost', '127.0.0.1'] };
if (context.client_id) Object.assign(oauth, { clientId: context.client_id, clientSecret: { $env: 'CLIENT_SECRET' } });
const config = {
  listen: '127.0.0.1:0',
  publicUrl,
  allowedHosts: ['127.0.0.1'],
  identity: [{ kind: 'local', user: 'conformance' }],
  tokenStore: { kind: 'embedded', path: join(home, 'data'), keys: [{ id: 'k1', file: key }] },
  mcpServers: { tested: { url, oauth } },
};
writeFileSync(join(home, 'config.json'), JSON.stringify(config));
const bridge = spawn(program, ['serve', '--config', join(home, 'config.json')], {
  env: { ...process.env, CLIENT_SECRET: context.client_secret ?? 'none' },
  stdio: ['ignore', 'pipe', 'inherit'],
});
const [line] = await new Promise((heard) => createInterface({ input: bridge.stdout }).once('line', (...said) => heard(said)));
const base = line.match(/http:\/\/\S+/)[0].replace(/\/$/, '');

const cookies = new Map();
async function visit(path, form) {
  const headers = { Cookie: [...cookies].map((pair) => pair.join('=')).join('; ') };
  if (form) Object.assign(headers, { Origin: 'null', 'Sec-Fetch-Site': 'same-origin' });
  const answer = await fetch(base + path, {
    headers,
    method: form ? 'POST' : 'GET',
    body: form && new URLSearchParams(form),
    redirect: 'manual',
  });
  for (const cookie of answer.headers.getSetCookie()) {
    const [name, value] = cookie.split(';')[0].split('=');
    cookies.set(name, value);
  }
  return { status: answer.status, refresh: answer.headers.get('refresh'), text: await answer.text() };
}

// From the button to the page that says how it ended.
async function signIn() {
  const page = await visit('/tested/connect');
  const [form] = page.text.split('<form ').filter((form) => form.includes('/tested/connect/start"'));
  const token = form.match(/name="form" value="([^"]*)"/)[1];
  const led = await visit('/tested/connect/start', { form: token });
  if (!led.refresh) throw new Error(`nobody is led anywhere: ${led.status} ${led.text.match(/<p[^>]*>([^<]*)/g)?.join(' ')}`);
  // The service of a scenario lets everybody in at once.
  const there = await fetch(led.refresh.replace('0; url=', ''), { redirect: 'manual' });
  const back = new URL(there.headers.get('location'));
  const done = await visit(back.pathname + back.search);
  if (done.status !== 200) throw new Error(`not connected: ${done.status} ${done.text.match(/<h1>[^<]*/)}`);
}

let session;
async function send(message) {
  const answer = await fetch(`${base}/tested/mcp`, {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      Accept: 'application/json, text/event-stream',
      'MCP-Protocol-Version': '2025-11-25',
      ...(session ? { 'Mcp-Session-Id': session } : {}),
    },
    body: JSON.stringify({ jsonrpc: '2.0', ...message }),
  });
  session ??= answer.headers.get('mcp-session-id') ?? undefined;
  const text = await answer.text();
  const said = text.split('\n').filter((each) => each.startsWith('data: {')).map((each) => JSON.parse(each.slice(6)));
  return said.find((each) => each.id === message.id) ?? (text.startsWith('{') ? JSON.parse(text) : undefined);
}
async function handshake() {
  session = undefined;
  const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'conformance', version: '1' } };
  await send({ id: 1, method: 'initialize', params });
  await send({ method: 'notifications/initialized' });
}

try {
  // A link to the page of the server is what somebody gets who must sign in.
  const mustSignIn = (answer) => JSON.stringify(answer ?? {}).includes('/tested/connect');
  let answer;
  for (let signIns = 0; signIns < SIGN_INS; signIns++) {
    await signIn();
    await handshake();
    answer = await send({ id: 2, method: 'tools/list', params: {} });
    const [tool] = answer?.result?.tools ?? [];
    if (tool && !mustSignIn(answer)) answer = await send({ id: 3, method: 'tools/call', params: { name: tool.name, arguments: {} } });
    if (!mustSignIn(answer)) break;
  }
  console.log(JSON.stringify(answer));
  if (!answer || answer.error || mustSignIn(answer)) process.exitCode = 1;
} catch (error) {
  console.error(String(error.message));
  process.exitCode = 1;
} finally {
  const ended = new Promise((heard) => bridge.once('exit', heard));
  bridge.kill('SIGTERM');
  await ended;
  rmSync(home, { recursive: true });
}
