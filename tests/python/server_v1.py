"""A server as the quick start of the official Python SDK 1.x has it, with its defaults. Over stdio, or with a port over
Streamable HTTP. It has no subscriptions. What each tool does: tests/compatibility/matrix.rs."""

import os
import sys
from pathlib import Path

import anyio
from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

port = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else None
mcp = FastMCP("quick-start", **({"port": port} if port else {}))


class Name(BaseModel):
    name: str


@mcp.tool()
def echo(text: str) -> str:
    """The text again."""
    return text


@mcp.tool()
async def steps(trace: str, ctx: Context) -> str:
    """Three steps, each reported."""
    for step in 1, 2, 3:
        await ctx.report_progress(step, 3)
    while not Path(f"{trace}.seen").exists():
        await anyio.sleep(0.05)
    return "three steps"


@mcp.tool()
async def log(ctx: Context) -> str:
    """Writes a log line."""
    await ctx.error("a line")
    return "logged"


@mcp.tool()
async def wait(trace: str) -> str:
    """Waits until it is cancelled."""
    Path(f"{trace}.waits").touch()
    try:
        await anyio.sleep_forever()
    finally:
        Path(f"{trace}.cancelled").touch()


@mcp.tool()
async def ask(ctx: Context) -> str:
    """Asks in the middle of the call."""
    answer = await ctx.elicit("Who is it?", Name)
    return f"hello {answer.data.name}, from {os.getpid()}"


@mcp.tool()
async def sample(ctx: Context) -> str:
    """Has the client's model say something."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text="Say something."))
    answer = await ctx.session.create_message([message], max_tokens=10)
    return f"it said {answer.content.text}"


@mcp.tool()
async def roots(ctx: Context) -> str:
    """Asks where the client works."""
    return " ".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)


@mcp.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("it failed")


@mcp.tool()
def large() -> str:
    """Two mebibytes."""
    return "x" * (2 << 20)


@mcp.tool()
def crash() -> str:
    """Ends the server in the middle of the call."""
    os._exit(1)


mcp.run(transport="streamable-http" if port else "stdio")
