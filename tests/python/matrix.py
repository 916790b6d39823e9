"""What every client of the matrix does, once each: see tests/compatibility/matrix.rs, which judges it.

The task comes as one JSON argument: {url | command, trace, note, only, patience, soon}. What came of each operation goes to stdout as
one line of JSON: "ok", or in a few words what came instead. An SDK's client is here an object with list_tools(), call(),
want_logs(), subscribed() and logs, as in client_v1.py.
"""

import json
import sys
import time
from pathlib import Path

import anyio

task = json.loads(sys.argv[1])
PATIENCE = task["patience"]
ROOT = "file:///work"
uri = f"file://{task['note']}"


class NotOk(Exception):
    """What came instead."""


def expect(wanted, got):
    if wanted != got:
        raise NotOk(f"{got!r:.200}")


async def until(is_so):
    """Looks again and again until it is so."""
    while not is_so():
        await anyio.sleep(0.02)


def filled_in(schema):
    """What somebody answers to a form."""
    return {name: "Ada" for name in schema["properties"]}


def words(error):
    """An error in one short line."""
    if isinstance(error, BaseExceptionGroup):
        return words(error.exceptions[0])
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


class Operations:
    """The operations, of one connection."""

    def __init__(self, client):
        self.client = client

    async def list(self):
        tools = await self.client.list_tools()
        if "echo" not in tools:
            raise NotOk(f"{tools}")

    async def call(self):
        expect((False, "h\u00e4llo"), await self.client.call("echo", {"text": "h\u00e4llo"}))

    async def progress(self):
        steps = []

        async def on_progress(progress, total, _message=None):
            steps.append((progress, total))
            if len(steps) == 3:
                Path(f"{task['trace']}.seen").touch()

        answer = await self.client.call("steps", {"trace": task["trace"]}, on_progress)
        expect(((False, "three steps"), [(1, 3), (2, 3), (3, 3)]), (answer, steps))

    async def log(self):
        await self.client.want_logs()
        expect((False, "logged"), await self.client.call("log", {}))
        # FastMCP wraps what it logs.
        await self.within(lambda: "a line" in str(self.client.logs), f"logs {self.client.logs}")

    async def cancel(self):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.client.call, "wait", {"trace": task["trace"]})
            await until(Path(f"{task['trace']}.waits").exists)
            tasks.cancel_scope.cancel()
        await self.within(Path(f"{task['trace']}.cancelled").exists, "the tool does not see it")

    async def elicitation(self):
        is_error, text = await self.client.call("ask", {})
        expect((False, "hello Ada"), (is_error, text.split(",")[0]))

    async def sampling(self):
        expect((False, "it said words"), await self.client.call("sample", {}))

    async def roots(self):
        expect((False, ROOT), await self.client.call("roots", {}))

    async def subscribe(self):
        updated = []
        async with self.client.subscribed(uri, updated.append):
            # Who listens sees changes from when it began to, which nobody is told: it changes until one is seen.
            async def change():
                while True:
                    Path(task["note"]).write_text(str(time.time()))
                    await anyio.sleep(0.2)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(change)
                await until(lambda: updated)
                tasks.cancel_scope.cancel()
        expect({uri}, {str(each) for each in updated})

    async def error(self):
        is_error, text = await self.client.call("fail", {})
        if not is_error or "it failed" not in text:
            raise NotOk(f"{is_error}, {text!r:.200}")

    async def crash(self):
        try:
            await self.client.call("crash", {})
        except Exception:
            pass  # in whatever way
        await until(Path(f"{task['trace']}.back").exists)
        await self.call()

    async def large(self):
        is_error, text = await self.client.call("large", {})
        expect((False, 2 << 20), (is_error, len(text)))

    async def within(self, is_so, otherwise):
        """Soon: the answer has been there before it, or is on its way."""
        with anyio.move_on_after(task["soon"]):
            return await until(is_so)
        raise NotOk(otherwise)


async def visit(connect, left, seen):
    """Does what is left, on one connection, until it goes wrong."""
    name = "connect"
    with anyio.CancelScope(deadline=anyio.current_time() + PATIENCE) as scope:
        try:
            async with connect() as client:
                seen["connect"] = "ok"
                while left:
                    name = left.pop(0)
                    scope.deadline = anyio.current_time() + PATIENCE
                    await getattr(Operations(client), name)()
                    seen[name] = "ok"
        except Exception as error:
            seen.setdefault(name, words(error))  # but an ending after all was good is no matter
    if scope.cancelled_caught:
        seen.setdefault(name, "no end")


async def run(connect):
    """Has the client do each operation, with a new connection after each that went wrong. `connect()` is the connection."""
    names = ["list", "call", "progress", "log", "cancel", "elicitation", "sampling", "roots", "subscribe"]
    seen, left = {}, [name for name in [*names, "error", "large", "crash"] if name in task["only"]]
    while left and seen.get("connect", "ok") == "ok":
        await visit(connect, left, seen)
    print(json.dumps(seen), flush=True)
