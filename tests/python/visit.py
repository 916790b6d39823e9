"""What every client does here: list the tools, call one, call one that reports progress, call one that fails, call
another.

The task comes as one JSON argument: {url, bearer?, mode?, call?, progress?, failing, again?}, where the last four are
{name, arguments}. What was seen goes to stdout as one line of JSON.
"""

import json
import sys

task = json.loads(sys.argv[1])
headers = {"Authorization": f"Bearer {task['bearer']}"} if task.get("bearer") else {}


def text_of(result):
    return "\n".join(getattr(item, "text", item.type) for item in result.content)


async def visit(seen, list_tools, call_tool, rpc_error, is_error):
    """`seen` is what connecting showed; `rpc_error` and `is_error` are where the two SDK lines differ in names."""
    seen["tools"] = [tool.name for tool in (await list_tools()).tools]
    if task.get("call"):
        seen["text"] = text_of(await call_tool(**task["call"]))
    if task.get("progress"):
        seen["progress"] = []

        async def on_progress(progress, total, _message):
            seen["progress"].append([progress, total])

        seen["progressText"] = text_of(await call_tool(**task["progress"], progress_callback=on_progress))
    try:
        result = await call_tool(**task["failing"])
        seen["failure"] = {"isError": is_error(result), "text": text_of(result)}
    except rpc_error as error:
        seen["failure"] = {"isError": True, "code": error.error.code, "text": error.error.message}
    if task.get("again"):
        seen["again"] = text_of(await call_tool(**task["again"]))
    print(json.dumps(seen), flush=True)
