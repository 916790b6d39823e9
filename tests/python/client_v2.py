"""The official Python SDK 2.x, which finds out the era of its server. The task and the answer: matrix.py."""

import warnings
from contextlib import asynccontextmanager

import anyio
import mcp.types as types
from matrix import ROOT, filled_in, run, task
from mcp import Client as SdkClient
from mcp import StdioServerParameters

MODERN = "2026-07-28"
warnings.simplefilter("ignore")  # what older servers have, it calls deprecated


class Client:
    def __init__(self, client, logs, updated):
        self.client, self.logs, self.updated = client, logs, updated
        self.is_modern = client.protocol_version >= MODERN

    async def list_tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool(name, arguments, progress_callback=on_progress)
        return bool(result.is_error), result.content[0].text

    async def want_logs(self):
        if not self.is_modern and self.client.server_capabilities.logging:
            await self.client.set_logging_level("info")

    @asynccontextmanager
    async def subscribed(self, uri, seen):
        if not self.is_modern:
            self.updated.append(seen)
            await self.client.subscribe_resource(uri)
            yield
            return

        async def listen(subscription):
            async for event in subscription:
                seen(event.uri)

        async with self.client.listen(resource_subscriptions=[uri]) as subscription:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen, subscription)
                yield
                tasks.cancel_scope.cancel()


async def elicited(_context, params):
    return types.ElicitResult(action="accept", content=filled_in(params.requested_schema))


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
        if isinstance(message, types.ResourceUpdatedNotification):
            for each in updated:
                each(message.params.uri)

    if "url" in task:
        server = task["url"]
    else:
        program, *arguments = task["command"]
        server = StdioServerParameters(command=program, args=arguments)
    async with SdkClient(
        server,
        elicitation_callback=elicited,
        sampling_callback=sampled,
        list_roots_callback=rooted,
        logging_callback=logged,
        log_level="info",
        message_handler=told,
    ) as client:
        yield Client(client, logs, updated)


anyio.run(run, connect)
