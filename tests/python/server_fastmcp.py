"""A server as the quick start of FastMCP 4 has it, with its defaults: both eras, and a key of `requestState` of its
process. Over stdio, or with a port over Streamable HTTP. It has no subscriptions. What each tool does:
tests/compatibility/matrix.rs."""

import os
import sys
from pathlib import Path

import anyio
from fastmcp import Context, FastMCP
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)

port = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else None
mcp = FastMCP("quick-start")

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}
SAY_SOMETHING = [SamplingMessage(role="user", content=TextContent(type="text", text="Say something."))]
MODERN = "2026-07-28"


def asks_by_result(ctx):
    """FastMCP leaves it to the tool: in the middle of the call for older clients, by the result for modern ones."""
    return ctx.request_context.protocol_version >= MODERN


def asks(question):
    return InputRequiredResult(input_requests={"question": question}, request_state="asked")


@mcp.tool
def echo(text: str) -> str:
    """The text again."""
    return text


@mcp.tool
async def steps(trace: str, ctx: Context) -> str:
    """Three steps, each reported."""
    for step in 1, 2, 3:
        await ctx.report_progress(step, 3)
    while not Path(f"{trace}.seen").exists():
        await anyio.sleep(0.05)
    return "three steps"


@mcp.tool
async def log(ctx: Context) -> str:
    """Writes a log line."""
    await ctx.error("a line")
    return "logged"


@mcp.tool
async def wait(trace: str) -> str:
    """Waits until it is cancelled."""
    Path(f"{trace}.waits").touch()
    try:
        await anyio.sleep_forever()
    finally:
        Path(f"{trace}.cancelled").touch()


@mcp.tool
async def ask(ctx: Context) -> str | InputRequiredResult:
    """Asks as each era does."""
    if not asks_by_result(ctx):
        return await ask_live(ctx)
    if ctx.input_responses:
        return f"hello {ctx.input_responses['question'].content['name']}, from {os.getpid()}"
    return asks(ElicitRequest(params=ElicitRequestFormParams(message="Who is it?", requested_schema=SCHEMA)))


@mcp.tool
async def sample(ctx: Context) -> str | InputRequiredResult:
    """Has the client's model say something."""
    if not asks_by_result(ctx):
        return await sample_live(ctx)
    if ctx.input_responses:
        return f"it said {ctx.input_responses['question'].content.text}"
    return asks(CreateMessageRequest(params=CreateMessageRequestParams(messages=SAY_SOMETHING, max_tokens=10)))


@mcp.tool
async def roots(ctx: Context) -> str | InputRequiredResult:
    """Asks where the client works."""
    if not asks_by_result(ctx):
        answer = await ctx.session.list_roots()
    elif ctx.input_responses:
        answer = ctx.input_responses["question"]
    else:
        return asks(ListRootsRequest())
    return " ".join(str(root.uri) for root in answer.roots)


@mcp.tool
async def ask_live(ctx: Context) -> str:
    """Asks in the middle of the call."""
    answer = await ctx.elicit("Who is it?", response_type=str)
    return f"hello {answer.data}, from {os.getpid()}"


@mcp.tool
async def sample_live(ctx: Context) -> str:
    """Has the client's model say something meanwhile."""
    answer = await ctx.session.create_message(SAY_SOMETHING, max_tokens=10, related_request_id=ctx.request_id)
    return f"it said {answer.content.text}"


@mcp.tool
def fail() -> str:
    """Fails."""
    raise ValueError("it failed")


@mcp.tool
def large() -> str:
    """Two mebibytes."""
    return "x" * (2 << 20)


@mcp.tool
def crash() -> str:
    """Ends the server in the middle of the call."""
    os._exit(1)


if port:
    mcp.run(transport="http", port=port, show_banner=False)
else:
    mcp.run(show_banner=False)
