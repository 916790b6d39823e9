"""A server as the quick start of FastMCP 4 has it, with its defaults: both eras, and a key of `requestState` of its
process. Over stdio, or with a port over Streamable HTTP."""

import os
import sys

from fastmcp import Context, FastMCP
from mcp.types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult, SamplingMessage, TextContent

mcp = FastMCP("quick-start")

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


@mcp.tool
async def ask(ctx: Context) -> str:
    """Asks in the middle of the call."""
    answer = await ctx.elicit("Who is it?", response_type=str)
    return f"hello {answer.data}, from {os.getpid()}"


@mcp.tool
async def sample(ctx: Context) -> str:
    """Has the client's model say something."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text="Say something."))
    answer = await ctx.session.create_message([message], max_tokens=10, related_request_id=ctx.request_id)
    return f"it said {answer.content.text}"


@mcp.tool
async def resolve(ctx: Context) -> str | InputRequiredResult:
    """Asks by its result."""
    if ctx.input_responses:
        return f"hello {ctx.input_responses['name'].content['name']}, from {os.getpid()}"
    question = ElicitRequest(params=ElicitRequestFormParams(message="Who is it?", requested_schema=SCHEMA))
    return InputRequiredResult(input_requests={"name": question}, request_state="asked")


if len(sys.argv) > 1 and sys.argv[1].isdigit():
    mcp.run(transport="http", port=int(sys.argv[1]), show_banner=False)
else:
    mcp.run(show_banner=False)
