"""The official Python SDK 1.x, whose user has saved no token. The task and the steps: connect.py."""

from contextlib import asynccontextmanager

import anyio
import mcp.types as types
from connect import run, say, task, tools_changed, visited
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError


class Client:
    def __init__(self, session):
        self.session = session

    async def list_tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, name):
        try:
            result = await self.session.call_tool(name, {})
        except McpError as error:
            return {"code": error.error.code, "data": error.error.data}
        return {"isError": bool(result.isError), "text": result.content[0].text}


async def elicited(_context, params):
    return visited(params, types.ElicitResult(action="accept"))


async def told(message):
    if isinstance(message, types.ServerNotification):
        if isinstance(message.root, types.ToolListChangedNotification):
            tools_changed.set()
        if isinstance(message.root, types.ElicitCompleteNotification):
            say(completed=message.root.params.elicitationId)


@asynccontextmanager
async def connect():
    callbacks = {"elicitation_callback": elicited} if task["pages"] else {}
    async with streamablehttp_client(task["url"]) as (read, write, *_):
        async with ClientSession(read, write, message_handler=told, **callbacks) as session:
            await session.initialize()
            yield Client(session)


anyio.run(run, connect)
