"""The official Python SDK 1.x, the first and the last of it: legacy only; over HTTP+SSE if the URL says so. It cannot take back a call. The task and the
answer: matrix.py."""

from contextlib import asynccontextmanager
from inspect import signature

import anyio
import mcp.types as types
from matrix import ROOT, filled_in, run, task
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client


class Client:
    def __init__(self, session, has_logs, logs, updated):
        self.session, self.has_logs, self.logs, self.updated = session, has_logs, logs, updated

    async def list_tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, name, arguments, on_progress=None):
        result = await self.session.call_tool(name, arguments, progress_callback=on_progress)
        return bool(result.isError), result.content[0].text

    async def want_logs(self):
        if self.has_logs:
            await self.session.set_logging_level("info")

    @asynccontextmanager
    async def subscribed(self, uri, seen):
        self.updated.append(seen)
        await self.session.subscribe_resource(uri)
        yield


async def elicited(_context, params):
    return types.ElicitResult(action="accept", content=filled_in(params.requestedSchema))


async def sampled(_context, _params):
    return types.CreateMessageResult(
        role="assistant", model="m", content=types.TextContent(type="text", text="words")
    )


async def rooted(_context):
    return types.ListRootsResult(roots=[types.Root(uri=ROOT, name="work")])


@asynccontextmanager
async def connect():
    logs, updated = [], []

    async def logged(params):
        logs.append(params.data)

    async def told(message):
        if isinstance(message, types.ServerNotification) and isinstance(
            message.root, types.ResourceUpdatedNotification
        ):
            for each in updated:
                each(message.root.params.uri)

    if "url" in task:
        transport = (sse_client if task["url"].endswith("/sse") else streamablehttp_client)(task["url"])
    else:
        program, *arguments = task["command"]
        transport = stdio_client(StdioServerParameters(command=program, args=arguments))
    async with transport as (read, write, *_):
        callbacks = {
            "sampling_callback": sampled,
            "list_roots_callback": rooted,
            "logging_callback": logged,
            "message_handler": told,
        }
        if "elicitation_callback" in signature(ClientSession).parameters:  # not the first
            callbacks["elicitation_callback"] = elicited
        async with ClientSession(read, write, **callbacks) as session:
            hello = await session.initialize()
            yield Client(session, hello.capabilities.logging is not None, logs, updated)


anyio.run(run, connect)
