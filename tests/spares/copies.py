"""A library that copies the environment while it is imported, as pydantic-settings and GitPython do."""

import os

COPY = os.environ.copy()
ITEMS = dict(os.environ.items())
EXPANDED = {**os.environ}
EARLY = [copy.get("TOKEN") for copy in (COPY, ITEMS, EXPANDED)]
