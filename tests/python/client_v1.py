"""The official Python client, mcp 1.x: legacy only; over HTTP+SSE if the URL says so. The task and the answer: visit.py."""

import anyio
from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from visit import headers, task, visit


async def main():
    client = sse_client if task["url"].endswith("/sse") else streamablehttp_client
    async with client(task["url"], headers=headers) as (read, write, *_):
        async with ClientSession(read, write) as session:
            hello = await session.initialize()
            seen = {"protocolVersion": str(hello.protocolVersion), "server": hello.serverInfo.name}
            await visit(seen, session.list_tools, session.call_tool, McpError, lambda result: bool(result.isError))


anyio.run(main)
