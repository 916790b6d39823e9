"""What an official client does whose user has saved no token, in one session: see tests/connect/official.rs, which judges it.

The task comes as one JSON argument: {url, pages}. Each step goes to stdout as one line of JSON. An SDK's client is here an object
with list_tools() and call(), as in connect_v1.py.
"""

import json
import sys

import anyio

task = json.loads(sys.argv[1])
tools_changed = anyio.Event()


def say(**step):
    print(json.dumps(step), flush=True)


def visited(params, accepted):
    """What a person's application does with a link: it opens it, and goes on at once."""
    say(visit=params.url)
    return accepted


async def run(connect):
    async with connect() as client:
        say(tools=await client.list_tools())
        first = await client.call("whoami")
        say(first=first)
        if first.get("isError") is not False:
            await tools_changed.wait()
            say(tools=await client.list_tools())
            say(second=await client.call("whoami"))
