// Has a program on Node.js wait where it first needs a variable that only its request knows. Tollbridge starts it before
// that request, and has Node load this before the program (NODE_OPTIONS=--require).
//
// TOLLBRIDGE_GATE says on which descriptor such variables come, then their names, all with `=` between them; `?` stands before a
// name that the request may leave out. What comes is a record: its length (4 bytes, the highest first), and as many bytes of
// variables, each as `NAME=VALUE` with a NUL behind it.
//
// Names are no secret, so what asks for names alone goes on. Once a value has been asked for, all is as if this had never
// been loaded.
'use strict';

// Programs may replace these.
const { closeSync, fstatSync, readSync, writeSync } = require('node:fs');
const { syncBuiltinESMExports } = require('node:module');
const threads = require('node:worker_threads');
const { reallyExit } = process;

/// The variables of the system.
const real = process.env;
const [channel, ...names] = (real.TOLLBRIDGE_GATE ?? '').split('=');
/// The variables that are not known yet, and whether each will surely be there.
const late = new Map(names.map((name) => (name.startsWith('?') ? [name.slice(1), false] : [name, true])));
const descriptor = Number(channel);
const undo = [];

/// Takes what brought this here out of the environment.
function hide() {
  delete real.TOLLBRIDGE_GATE;
  const written = real.NODE_OPTIONS ?? '';
  const [option, separator] = written.match(/--require="(?:[^"\\]|\\.)*gate\.cjs"( ?)/) ?? ['', ''];
  const rest = written.replace(option, () => '');
  if (separator || rest) real.NODE_OPTIONS = rest;
  else delete real.NODE_OPTIONS;
}

/// Which file the descriptor is: the program may close it, and open another with its number.
function identity() {
  try {
    const { dev, ino } = fstatSync(descriptor, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/// Tells `tollbridge doctor` how far the program came.
function tell(what) {
  try {
    if (atStart !== undefined && identity() === atStart) writeSync(descriptor, `${what}\n`);
  } catch {
    // Nobody listens.
  }
}

function read(length) {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    let count = 0;
    try {
      count = readSync(descriptor, bytes, at, length - at, null);
    } catch (error) {
      if (error.code === 'EINTR') continue;
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      continue;
    }
    if (count === 0) throw new Error('nothing more comes');
    at += count;
  }
  return bytes;
}

/// The variables of the request, as soon as there is one.
function receive() {
  if (atStart === undefined || identity() !== atStart) throw new Error('the program has closed the descriptor');
  const record = read(read(4).readUInt32BE());
  closeSync(descriptor);
  const variables = record.toString().split('\0').slice(0, -1);
  record.fill(0);
  return variables.map((variable) => [variable.slice(0, variable.indexOf('=')), variable.slice(variable.indexOf('=') + 1)]);
}

/// Waits for the request.
function wait(where) {
  if (late.size === 0) return;
  tell(`waits at ${where}`);
  let variables;
  try {
    variables = receive();
  } catch (error) {
    // Without them it would go on as somebody whom it is not for.
    writeSync(2, `the variables of the request cannot be had: ${error.message}\n`);
    reallyExit(1);
  }
  for (const [name, value] of variables) {
    // Unless the program has set it itself.
    if (late.has(name)) real[name] = value;
  }
  late.clear();
  undo.forEach((back) => back());
  syncBuiltinESMExports();
}

function waitForNames() {
  if ([...late.values()].includes(false)) wait('a list of the names of variables');
}

const env = new Proxy(real, {
  get(target, name) {
    if (late.has(name)) wait(`the first read of ${name}`);
    return Reflect.get(target, name);
  },
  has(target, name) {
    if (late.get(name) === false) wait(`the question whether there is ${name}`);
    return late.has(name) || Reflect.has(target, name);
  },
  ownKeys(target) {
    waitForNames();
    return [...new Set([...Reflect.ownKeys(target), ...late.keys()])];
  },
  getOwnPropertyDescriptor(target, name) {
    if (late.get(name) === false) wait(`the question whether there is ${name}`);
    if (!late.has(name)) return Reflect.getOwnPropertyDescriptor(target, name);
    // `Object.keys` asks for this, and only wants to know that it can be enumerated.
    const get = () => env[name];
    const set = (value) => {
      env[name] = value;
    };
    return { get, set, enumerable: true, configurable: true };
  },
  set(target, name, value) {
    late.delete(name);
    return Reflect.set(target, name, value);
  },
  defineProperty(target, name, property) {
    late.delete(name);
    return Reflect.defineProperty(target, name, property);
  },
  deleteProperty(target, name) {
    late.delete(name);
    return Reflect.deleteProperty(target, name);
  },
});

/// Puts `value` there until the request has come.
function replace(owner, name, value) {
  const original = owner[name];
  owner[name] = value;
  undo.push(() => {
    if (owner[name] === value) owner[name] = original;
  });
}

/// Has a function that looks at one property, or at all, wait before it looks at those that are not known.
function waitIn(owner, name, what) {
  const original = owner[name];
  const apply = (target, self, [object, ...rest]) => {
    const looksAtLate = rest.length === 0 || late.has(String(rest[0]));
    if (object === env && looksAtLate) wait(what);
    return Reflect.apply(target, self, [object, ...rest]);
  };
  replace(owner, name, new Proxy(original, { apply }));
}

/// A worker gets a copy of the system's variables, or shares them, unless it is given some.
function waitInWorkers() {
  const construct = (target, given, made) => {
    const variables = given[1]?.env;
    if (variables === null || typeof variables !== 'object') wait('the start of a worker');
    return Reflect.construct(target, given, made);
  };
  replace(threads, 'Worker', new Proxy(threads.Worker, { construct }));
}

const atStart = channel === '' ? undefined : identity();
if (channel !== '') {
  hide();
  tell('has begun');
}
if (late.size > 0) {
  replace(process, 'env', env);
  for (const owner of [Object, Reflect]) waitIn(owner, 'getOwnPropertyDescriptor', 'a look at a variable');
  waitIn(Object, 'getOwnPropertyDescriptors', 'a copy of the environment');
  waitInWorkers();
  syncBuiltinESMExports();
}
