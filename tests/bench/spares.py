"""What spares gain: `scripts/bench --spares`.

Calls of real servers through one bridge, each server once without spares and once with them: one call every other second,
and eight at once; and the memory of a spare that waits. Prints a table. Calls nothing but the bridge on loopback.

spares.py TOLLBRIDGE EVERYTHING_NODE EVERYTHING_SCRIPT MCP_SERVER_TIME [IMAGE]
"""

import contextlib
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

CALLS, PAUSE, AT_ONCE, SPARES = 10, 2.0, 8, 2
ROUNDS = 4
TOKEN = "a-token-for-the-bench"


def servers(arguments):
    """The servers, each with the call that is made of it: (tool, arguments)."""
    node, script, clock, *image = arguments
    found = {
        "everything": ({"command": node, "args": [script, "stdio"]}, ("echo", {"message": "hello"})),
        "time": ({"command": clock}, ("get_current_time", {"timezone": "UTC"})),
    }
    if image:
        held = {"image": image[0], "env": {"TINY_TOKEN": {"$userToken": "<<token>>"}}}
        found["image"] = (held, ("echo", {"text": "hello"}))
    return found


class Bridge:
    """A bridge in front of the servers, in a directory that goes with it."""

    def __init__(self, program, found):
        self.home = tempfile.TemporaryDirectory(prefix="tollbridge-bench-")
        home = pathlib.Path(self.home.name)
        key, config = home / "k1.key", home / "tollbridge.json"
        entries = {}
        for name, (entry, _) in found.items():
            entries[f"{name}-fresh"] = entry
            entries[f"{name}-spares"] = {**entry, "spares": SPARES}
        config.write_text(json.dumps({
            "listen": "127.0.0.1:0",
            "identity": [{"kind": "local", "user": "alice"}],
            "tokenStore": {"kind": "embedded", "path": str(home / "data"), "keys": [{"id": "k1", "file": str(key)}]},
            "admin": {"listen": "127.0.0.1:0"},
            "mcpServers": entries,
        }))
        subprocess.run([program, "keygen", "--out", key], check=True, stdout=subprocess.DEVNULL)
        for name, entry in entries.items():
            if "$userToken" in json.dumps(entry):
                save = [program, "token", "set", "--config", config, "--user", "alice", "--server", name]
                subprocess.run(save, check=True, input=TOKEN.encode(), stdout=subprocess.DEVNULL)
        self.log = home / "log"
        with self.log.open("wb") as log:
            command = [program, "serve", "--log-format", "text", "--config", config]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.address = self.process.stdout.readline().strip().removeprefix("listening on http://")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.home.cleanup()

    def call(self, server, tool, arguments):
        """One call on a connection of its own; answers the seconds that it took."""
        meta = "io.modelcontextprotocol/"
        message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": tool, "arguments": arguments, "_meta": {
                f"{meta}protocolVersion": "2026-07-28", f"{meta}clientCapabilities": {},
                f"{meta}clientInfo": {"name": "bench", "version": "1"}}}})
        headers = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool,
        }
        began = time.monotonic()
        connection = http.client.HTTPConnection(self.address, timeout=120)
        with contextlib.closing(connection):
            connection.request("POST", f"/{server}/mcp", message, headers)
            response = connection.getresponse()
            body = response.read().decode()
        took = time.monotonic() - began
        if response.status != 200 or '"result"' not in body or '"isError":true' in body:
            raise SystemExit(f"bench: {server}: HTTP {response.status}: {body}\n{self.log.read_text()}")
        return took

    def admin(self):
        """Where the metrics are, which the log says a moment after the bridge listens."""
        while not (said := re.search(r"serving health and metrics address=(\S+)", self.log.read_text())):
            if self.process.poll() is not None:
                raise SystemExit(f"bench: the bridge has ended\n{self.log.read_text()}")
            time.sleep(0.05)
        return said.group(1)

    def waiting(self):
        """How many spares wait."""
        with contextlib.closing(http.client.HTTPConnection(self.admin(), timeout=10)) as connection:
            connection.request("GET", "/metrics")
            said = connection.getresponse().read().decode()
        return int(float(re.search(r'tollbridge_spares\{state="waiting"\} (\S+)', said).group(1)))

    def until_waiting(self, count):
        deadline = time.monotonic() + 120
        while self.waiting() < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: no {count} spares wait\n{self.log.read_text()}")
            time.sleep(0.05)


def percentile(times, part):
    ordered = sorted(times)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def alone(bridge, server, call):
    """One call, a pause, and so on."""
    times = []
    for _ in range(CALLS):
        time.sleep(PAUSE)
        times.append(bridge.call(server, *call))
    return times


def crowd(bridge, server, call):
    """So many at once, again and again: their times, and the calls of a second."""
    times = []

    def client():
        times.extend(bridge.call(server, *call) for _ in range(ROUNDS))

    threads = [threading.Thread(target=client) for _ in range(AT_ONCE)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(times) / (time.monotonic() - began)


def memory(program):
    """What the processes take whose command line has this in it, MB each (PSS)."""
    sizes = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if program.encode() in line and b"token\0set" not in line:
                pss = re.search(r"^Pss:\s+(\d+) kB", (entry / "smaps_rollup").read_text(), re.MULTILINE)
                sizes.append(int(pss.group(1)) / 1000)
    return sum(sizes) / len(sizes) if sizes else float("nan")


def main():
    program, *rest = sys.argv[1:]
    found = servers(rest)
    print("| server | | alone: p50 | p99 | 8 at once: p50 | p99 | calls/s | a waiting spare |")
    print("|---|---|---|---|---|---|---|---|")
    with Bridge(program, found) as bridge:
        for name, (entry, call) in found.items():
            bridge.until_waiting(SPARES * len(found))
            spare = f"{memory(entry['args'][0] if 'args' in entry else entry['command']):.0f} MB" if "command" in entry else ""
            for way in ("fresh", "spares"):
                server = f"{name}-{way}"
                bridge.call(server, *call)
                one = alone(bridge, server, call)
                many, rate = crowd(bridge, server, call)
                cells = [percentile(one, 0.5), percentile(one, 0.99), percentile(many, 0.5), percentile(many, 0.99)]
                figures = " | ".join(f"{cell:.0f} ms" for cell in cells)
                print(f"| {name} | {way} | {figures} | {rate:.1f} | {spare if way == 'spares' else ''} |", flush=True)


if __name__ == "__main__":
    main()
