"""A server as the quick start of the official Python SDK 2.x has it, with its defaults: both eras, and a key of
`requestState` of its process. Over stdio, or with a port over Streamable HTTP. Only modern clients can subscribe. What
each tool does: tests/compatibility/matrix.rs."""

import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import anyio
from changes import changes_of
from mcp.server.mcpserver import Context, Elicit, ListRoots, MCPServer, Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated
from mcp.types import CreateMessageResult, ListRootsResult, SamplingMessage, TextContent
from pydantic import BaseModel

port = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else None
note = sys.argv[2] if len(sys.argv) > 2 else None
bus = InMemorySubscriptionBus()
SAY_SOMETHING = [SamplingMessage(role="user", content=TextContent(type="text", text="Say something."))]


@asynccontextmanager
async def lifespan(_server):
    """Tells of each change of the note."""

    async def watch():
        async for _ in changes_of(note):
            await bus.publish(ResourceUpdated(uri=f"file://{note}"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield
        tasks.cancel_scope.cancel()


mcp = MCPServer("quick-start", subscriptions=bus, lifespan=lifespan)


class Name(BaseModel):
    name: str


async def who() -> Elicit[Name]:
    return Elicit("Who is it?", Name)


async def something() -> Sample:
    return Sample(SAY_SOMETHING, max_tokens=10)


async def where() -> ListRoots:
    return ListRoots()


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
async def ask(name: Annotated[Name, Resolve(who)]) -> str:
    """Asks as each era does."""
    return f"hello {name.name}, from {os.getpid()}"


@mcp.tool()
async def sample(answer: Annotated[CreateMessageResult, Resolve(something)]) -> str:
    """Has the client's model say something."""
    return f"it said {answer.content.text}"


@mcp.tool()
async def roots(answer: Annotated[ListRootsResult, Resolve(where)]) -> str:
    """Asks where the client works."""
    return " ".join(str(root.uri) for root in answer.roots)


@mcp.tool()
async def ask_live(ctx: Context) -> str:
    """Asks in the middle of the call."""
    answer = await ctx.elicit("Who is it?", Name)
    return f"hello {answer.data.name}, from {os.getpid()}"


@mcp.tool()
async def sample_live(ctx: Context) -> str:
    """Has the client's model say something meanwhile."""
    answer = await ctx.session.create_message(SAY_SOMETHING, max_tokens=10, related_request_id=ctx.request_id)
    return f"it said {answer.content.text}"


@mcp.tool()
def fail() -> str:
    """Fails."""
    raise ToolError("it failed")


@mcp.tool()
def large() -> str:
    """Two mebibytes."""
    return "x" * (2 << 20)


@mcp.tool()
def crash() -> str:
    """Ends the server in the middle of the call."""
    os._exit(1)


if port:
    mcp.run(transport="streamable-http", port=port)
else:
    mcp.run()
