"""A file for a node, and rendering one from a template that a reader of the originals recognises. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # configuration files, not HTML
)


@dataclass(frozen=True)
class File:
    """A file for a node."""

    path: str
    content: str | bytes
    mode: int = 0o644
    source: str = ""
    """The user's file that it is a copy of; empty for the lab's own."""

    @property
    def data(self) -> bytes:
        """The content as it is written."""
        return self.content.encode() if isinstance(self.content, str) else self.content


def render(template: str, **values: Any) -> str:
    """A template of ``topology/templates``, filled in. A value that is missing is an error."""
    return _TEMPLATES.get_template(template).render(**values)
