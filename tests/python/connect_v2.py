"""The official Python SDK 2.x, whose user has saved no token; it finds out the era of its server. The task and the steps:
connect.py."""

import warnings
from contextlib import asynccontextmanager

import anyio
import mcp.types as types
from connect import run, task, tools_changed, visited
from mcp import Client as SdkClient
from mcp.shared.exceptions import MCPError

warnings.simplefilter("ignore")  # what older servers have, it calls deprecated


class Client:
    def __init__(self, client):
        self.client = client

    async def list_tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, name):
        try:
            result = await self.client.call_tool(name, {})
        except MCPError as error:
            return {"code": error.error.code, "data": error.error.data}
        return {"isError": bool(result.is_error), "text": result.content[0].text}


async def elicited(_context, params):
    return visited(params, types.ElicitResult(action="accept"))


@asynccontextmanager
async def connect():
    callbacks = {"elicitation_callback": elicited} if task["pages"] else {}
    async with SdkClient(task["url"], **callbacks) as client:

        async def listen(subscription):
            async for _event in subscription:
                tools_changed.set()

        async with client.listen(tools_list_changed=True) as subscription, anyio.create_task_group() as tasks:
            tasks.start_soon(listen, subscription)
            yield Client(client)
            tasks.cancel_scope.cancel()


anyio.run(run, connect)
