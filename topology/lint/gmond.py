"""``/etc/ganglia/gmond.conf``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from topology.lint.model import ClusterFiles, Config, Hit, Remark, cited, others, per_node

PATHS = ("/etc/ganglia/gmond.conf", "/etc/gmond.conf")


@dataclass(frozen=True)
class Section:
    """A section with its settings: name -> (line, value)."""

    line: int
    name: str
    settings: dict[str, tuple[int, str]] = field(default_factory=dict)


_TOKEN = re.compile(
    r"""(?P<comment>/\*.*?(?:\*/|\Z)|//[^\n]*|\#[^\n]*)"""
    r"""|(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|(?P<sign>[{}=])|(?P<word>[^\s{}=#"']+|["'])""",
    re.DOTALL,
)


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Section, ...]:
    """The sections in the order of their braces (libConfuse, gmond.conf(5)); comments are of C and of the shell."""
    sections: list[Section] = []
    open_: list[Section] = []
    words: list[tuple[int, str]] = []
    for line, token, is_sign in _tokens(text):
        if is_sign and token == "{":
            section = Section(line, words[-1][1] if words else "")
            sections.append(section)
            open_.append(section)
            words = []
        elif is_sign and token == "}":
            del open_[-1:]
            words = []
        else:
            words.append((line, "=" if is_sign else token))
            if [word for _, word in words[-2:-1]] == ["="] and words[-3:-2] and open_:
                open_[-1].settings[words[-3][1]] = (words[-3][0], token)
    return tuple(sections)


def _tokens(text: str) -> Iterator[tuple[int, str, bool]]:
    line, seen = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen = match.start()
        if match.lastgroup == "string":
            yield line, match[0][1:-1], False
        elif match.lastgroup != "comment":
            yield line, match[0], match.lastgroup == "sign"


def _globals(sections: tuple[Section, ...], name: str) -> tuple[int, str] | None:
    found = [section.settings[name] for section in sections if section.name == "globals" and name in section.settings]
    return found[-1] if found else None


def never_forgets(sections: tuple[Section, ...]) -> Iterator[Remark]:
    """Accepted: dead hosts stay in the list."""
    found = _globals(sections, "host_dmax")
    if found and found[1].strip("0") == "":
        yield (
            found[0],
            "host_dmax=0: a dead or renamed host stays in the list forever. Set the number of seconds after which to "
            "remove it, for example 86400 for a day [gmond.conf(5)]",
        )


def unicast_metadata(sections: tuple[Section, ...]) -> Iterator[Remark]:
    """Accepted: a collector that restarts drops metrics without their metadata."""
    hosts = [
        section.settings["host"]
        for section in sections
        if section.name == "udp_send_channel" and "host" in section.settings
    ]
    interval = _globals(sections, "send_metadata_interval")
    if hosts and (interval is None or interval[1].strip("0") == ""):
        value = "is 0" if interval else "is not set, which means 0"
        yield (
            interval[0] if interval else hosts[0][0],
            f"send_metadata_interval {value}, and udp_send_channel sends to one host: a collector that restarts "
            "drops all metrics until their senders restart too. Set it to 30, for example [gmond.conf(5)]",
        )


def groups_differ(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a node that sends where nobody listens is missing from the list."""
    groups = {config: _group(parse(config.text)) for config in configs}
    if len(set(groups.values())) > 1:
        here = cited(groups)
        values = per_node((config.node, group) for config, group in groups.items())
        yield Hit(
            here,
            0,
            f"udp_send_channel differs between nodes ({values}): nodes that send to another group or port are missing "
            "from the list. Use the same on all [gmond.conf(5)]",
            others(here, groups),
        )


def _group(sections: tuple[Section, ...]) -> str:
    found = [
        ":".join(each.settings.get(name, (0, ""))[1] for name in ("mcast_join", "host", "port")).replace("::", ":")
        for each in sections
        if each.name == "udp_send_channel"
    ]
    return " ".join(sorted(found)) or "nowhere"
