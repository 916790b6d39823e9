"""The official Python client, mcp 2.x. `mode` is 'auto' (its default), 'legacy', or a modern version to insist on.
The task and the answer: visit.py."""

import anyio
import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from visit import headers, task, visit


async def main():
    mode = {"mode": task["mode"]} if task.get("mode") else {}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        async with Client(streamable_http_client(task["url"], http_client=http), **mode) as client:
            info = client.server_info
            seen = {"protocolVersion": client.protocol_version, "server": info.name if info else None}
            await visit(seen, client.list_tools, client.call_tool, MCPError, lambda result: bool(result.is_error))


anyio.run(main)
