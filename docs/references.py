"""Roles of reStructuredText in docstrings, as in :func:`torchp2p.fuse`, become links of the reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?P<role>func|class):`(?P<path>[\w.]+)`")


class References(griffe.Extension):
    """Rewrites every docstring once it is read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """The docstring of a module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_link, obj.docstring.value)


def _link(match: re.Match[str]) -> str:
    path = match["path"]
    _, dot, name = path.rpartition(".")
    if not dot:  # in the same module, on the same page
        return f"`{name}`"
    # A function of the package has a file of its own name, by which the reference knows it.
    return f"[`{path}`][{path}.{name}]" if match["role"] == "func" else f"[`{path}`][{path}]"
