"""Rendering a file for a node from a template of ``topology/templates``. Pure."""

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
    """The user's file that it is a copy of; empty for a rendered one."""

    @property
    def data(self) -> bytes:
        """The content as it is written."""
        return self.content.encode() if isinstance(self.content, str) else self.content


def render(template: str, **values: Any) -> str:
    """Fill in a template of ``topology/templates``. A missing value is an error."""
    return _TEMPLATES.get_template(template).render(**values)
