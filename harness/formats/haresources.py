"""``/etc/ha.d/haresources`` as heartbeat's script ResourceManager reads it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from harness.formats.lines import joined

PATH = "/etc/ha.d/haresources"
LDIRECTORD_CF = "ldirectord.cf"
"""The file of an ldirectord without an argument (ld_init of ldirectord 4.12)."""


@dataclass(frozen=True)
class Resource:
    """A resource script and its arguments: ``script::argument::argument``. A bare address is one of IPaddr."""

    text: str

    @property
    def script(self) -> str:
        """The script's name; ``IPaddr`` for a bare address."""
        return "IPaddr" if self.text[:1].isdigit() else self.text.split("::")[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the script is called with, before ``start`` or ``stop``."""
        return tuple(self.text.split("::") if self.text[:1].isdigit() else self.text.split("::")[1:])

    @property
    def address(self) -> str:
        """The IP address that the resource brings up; empty when it is something else."""
        is_address = self.script in {"IPaddr", "IPaddr2"} and self.arguments
        return self.arguments[0].partition("/")[0] if is_address else ""


@dataclass(frozen=True)
class Group:
    """One line: its home director, and the resources that move together."""

    line: int
    node: str
    resources: tuple[Resource, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The IP addresses that the group brings up."""
        return tuple(resource.address for resource in self.resources if resource.address)

    @property
    def ldirectord_files(self) -> tuple[str, ...]:
        """The configurations that the group starts ldirectord with."""
        return tuple((*each.arguments, LDIRECTORD_CF)[0] for each in self.resources if each.script == "ldirectord")


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Group, ...]:
    """Read a file: comments anywhere, lines joined at a backslash, node names in lower case."""
    groups = ((number, line.split()) for number, line in joined(text))
    return tuple(
        Group(number, words[0].lower(), tuple(Resource(word) for word in words[1:]))
        for number, words in groups
        if words
    )
