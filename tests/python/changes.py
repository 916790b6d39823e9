"""What changes outside of a server's process, which any process of it can see."""

from pathlib import Path

import anyio

LOOK_SECONDS = 0.05


async def changes_of(file):
    """Yields whenever the file has been written since. Without a file: never."""
    if file is None:
        return

    def written_at():
        return Path(file).stat().st_mtime_ns if Path(file).exists() else None

    seen = written_at()
    while True:
        await anyio.sleep(LOOK_SECONDS)
        now = written_at()
        if now != seen:
            yield
        seen = now
