"""The client of FastMCP 4, which finds out the era of its server. It has no subscriptions. The task and the answer:
matrix.py."""

from contextlib import asynccontextmanager

import anyio
from fastmcp import Client as SdkClient
from fastmcp.client.transports import StdioTransport
from matrix import ROOT, NotOk, filled_in, run, task

MODERN = "2026-07-28"


class Client:
    def __init__(self, client, logs):
        self.client, self.logs = client, logs

    async def list_tools(self):
        return [tool.name for tool in await self.client.list_tools()]

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool(name, arguments, progress_handler=on_progress, raise_on_error=False)
        return bool(result.is_error), result.content[0].text

    async def want_logs(self):
        if self.client.protocol_version < MODERN and self.client.server_capabilities.logging:
            await self.client.set_logging_level("info")

    @asynccontextmanager
    async def subscribed(self, _uri, _seen):
        raise NotOk("it has none")
        yield


async def elicited(_message, _response_type, params, _context):
    return filled_in(params.requested_schema)


async def sampled(_messages, _params, _context):
    return "words"


@asynccontextmanager
async def connect():
    logs = []

    async def logged(message):
        logs.append(message.data)

    if "url" in task:
        server = task["url"]
    else:
        program, *arguments = task["command"]
        server = StdioTransport(program, arguments)
    async with SdkClient(
        server, roots=[ROOT], sampling_handler=sampled, elicitation_handler=elicited, log_handler=logged
    ) as client:
        yield Client(client, logs)


anyio.run(run, connect)
