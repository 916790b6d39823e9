"""An MCP server that reads its token in the way that its first argument names, before it listens. What the other argument
names is made once it is about to. Every tool says the hash of the token."""

import copy
import hashlib
import json
import os
import posix
import subprocess
import sys

how, reached = sys.argv[1:3]
ECHO = ["/bin/sh", "-c", 'printf %s "$TOKEN"']


def of_system():
    """What `os.system` shows, which has our stdout."""
    os.system(f'printf %s "$TOKEN" > {reached}.system')
    with open(f"{reached}.system") as file:
        return file.read()


def of_fork():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, os.environ["TOKEN"].encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        return pipe.read()


def inherited():
    """Whether a program finds our channel open that is not given the environment."""
    below = subprocess.check_output(["/bin/ls", "-l", "/proc/self/fd"], env={}, close_fds=False, stderr=subprocess.DEVNULL)
    return "inherited" if f"socket:[{os.fstat(3).st_ino}]".encode() in below else os.environ["TOKEN"]


def imports():
    """What a library got that was imported, or, if that was nothing, a word before what we see ourselves."""
    import copies

    early = set(copies.EARLY)
    return early.pop() or "without " + os.environ["TOKEN"] if len(early) == 1 else "not the same"


def closes():
    os.close(3)
    return os.environ["TOKEN"]


ways = {
    "getenv": lambda: os.getenv("TOKEN"),
    "item": lambda: os.environ["TOKEN"],
    "copy": lambda: os.environ.copy()["TOKEN"],
    "dict": lambda: {**os.environ}["TOKEN"],
    "items": lambda: [value for name, value in os.environ.items() if name == "TOKEN"][0],
    "bytes": lambda: os.environb[b"TOKEN"].decode(),
    "deepcopy": lambda: copy.deepcopy(os.environ)["TOKEN"],
    "popped": lambda: posix.environ.pop(b"TOKEN").decode(),
    "posix": lambda: dict(posix.environ)[b"TOKEN"].decode(),
    "subprocess": lambda: subprocess.check_output(ECHO).decode(),
    "given": lambda: subprocess.check_output(ECHO, env=os.environ).decode(),
    "system": of_system,
    "fork": of_fork,
    "inherited": inherited,
    "imports": imports,
    "closes": closes,
    "later": lambda: None,
}
if "TOKEN" not in os.environ or "TOKEN" not in list(os.environ):
    raise SystemExit("it has no name")
open(reached, "w").close()
token = ways[how]()
INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "reads", "version": "1"}}
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or message.get("params", {}).get("name") == "waits":
        continue
    answer = {"error": {"code": -32601, "message": "there is no such method"}}
    if message["method"] == "initialize":
        answer = {"result": INITIALIZED}
    elif message["method"] == "tools/list":
        answer = {"result": {"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]}}
    elif message["method"] == "tools/call":
        text = hashlib.sha256((os.environ["TOKEN"] if how == "later" else token).encode()).hexdigest()
        answer = {"result": {"content": [{"type": "text", "text": text}]}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
