"""A server as the quick start of the official Python SDK 2.x has it, with its defaults: both eras, and a key of
`requestState` of its process. Over stdio, or with a port over Streamable HTTP."""

import os
import sys
from typing import Annotated

from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

mcp = MCPServer("quick-start")


class Name(BaseModel):
    name: str


async def who() -> Elicit[Name]:
    return Elicit("Who is it?", Name)


@mcp.tool()
async def ask(ctx: Context) -> str:
    """Asks in the middle of the call."""
    answer = await ctx.elicit("Who is it?", Name)
    return f"hello {answer.data.name}, from {os.getpid()}"


@mcp.tool()
async def sample(ctx: Context) -> str:
    """Has the client's model say something."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text="Say something."))
    answer = await ctx.session.create_message([message], max_tokens=10, related_request_id=ctx.request_id)
    return f"it said {answer.content.text}"


@mcp.tool()
async def resolve(name: Annotated[Name, Resolve(who)]) -> str:
    """Asks as each era does."""
    return f"hello {name.name}, from {os.getpid()}"


if len(sys.argv) > 1 and sys.argv[1].isdigit():
    mcp.run(transport="streamable-http", port=int(sys.argv[1]))
else:
    mcp.run()
