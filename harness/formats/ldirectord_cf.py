"""ldirectord's configuration, as read_config of ldirectord 4.12 reads it. Pure.

The details matter: a virtual service ends at the first line that is not indented by 4 blanks or a tab, also at an
empty one; and values keep the blanks that follow them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

from harness.formats.lines import numbered

PATHS = ("/etc/ldirectord.cf", "/etc/ha.d/*.cf")

SERVICE_PORTS = {
    21: "ftp",
    25: "smtp",
    53: "dns",
    80: "http",
    110: "pop",
    119: "nntp",
    143: "imap",
    389: "ldap",
    443: "https",
    587: "submission",
    636: "ldaps",
    993: "imaps",
    995: "pops",
    1521: "oracle",
    1812: "radius",
    3128: "http_proxy",
    3306: "mysql",
    5060: "sip",
    5432: "pgsql",
}
"""The service that a virtual service's port implies (ld_port_to_service)."""
PORTS = {name: port for port, name in SERVICE_PORTS.items()} | {"www": 80, "domain": 53, "postgresql": 5432}
"""Names of ports that configurations use; any other name is left alone."""
FORWARDING = frozenset({"gate", "ipip", "masq"})

_OF_A_SERVICE = """
checkcommand checkport checktype comment database httpmethod load login monitorfile netmask ops passwd persistent
protocol real real6 receive request schedflags scheduler secret service servicename virtualhost
"""
OF_A_SERVICE = frozenset(_OF_A_SERVICE.split())
"""Settings that are allowed only in a virtual service (ldirectord(8))."""


@dataclass(frozen=True)
class Setting:
    """``name = value``."""

    line: int
    name: str
    value: str

    @property
    def number(self) -> int:
        """The first number in the value, as ldirectord takes it; 0 without one."""
        digits = re.search(r"[0-9]+", self.value)
        return int(digits[0][:9]) if digits else 0

    @property
    def word(self) -> str:
        """The first word of the value."""
        found = re.search(r"[\w-]+", self.value, re.ASCII)
        return found[0] if found else ""


@dataclass(frozen=True)
class Real:
    """A ``real`` line. ``count`` is more than 1 for a range. Port 0: the line has none; None: an unknown name."""

    line: int
    text: str
    server: str
    count: int
    port: int | None
    forward: str
    has_request: bool
    has_receive: bool


@dataclass(frozen=True)
class Service:
    """A virtual service. ``port`` is None for an unknown name, 0 for a firewall mark."""

    line: int
    address: str
    port: int | None
    fwmark: bool
    settings: tuple[Setting, ...]
    reals: tuple[Real, ...]

    def get(self, name: str) -> Setting | None:
        """The service's own setting; the last of several."""
        return _last(self.settings, name)

    @property
    def checktype(self) -> str:
        """``negotiate`` by default; a number combines connect and negotiate."""
        setting = self.get("checktype")
        if setting is None:
            return "negotiate"
        return "combined" if re.search(r"[0-9]", setting.value) else setting.word

    @property
    def service(self) -> str:
        """The protocol of the check: as set, otherwise as the port implies."""
        setting = self.get("service")
        if setting:
            return setting.word
        return "none" if self.fwmark or self.port is None else SERVICE_PORTS.get(self.port, "none")

    @property
    def negotiates(self) -> bool:
        """True when checks speak the protocol of the service, at least sometimes."""
        return self.checktype in {"negotiate", "combined"}


@dataclass(frozen=True)
class LdirectordCf:
    """A whole file. What ldirectord itself refuses is left out where it has no meaning."""

    settings: tuple[Setting, ...]
    services: tuple[Service, ...]
    stray: int = 0
    """The first line that belongs to the virtual service above it but is not indented; 0 without one."""

    def get(self, name: str) -> Setting | None:
        """The global setting; the last of several."""
        return _last(self.settings, name)

    def of(self, service: Service, name: str) -> Setting | None:
        """The setting in force for a virtual service: its own, otherwise the global one."""
        return service.get(name) or self.get(name)

    @property
    def maintenance_folder(self) -> str:
        """``maintenancedir``: a file there takes a real server out; empty without one."""
        folder = self.get("maintenancedir")
        return folder.value.strip() if folder else ""

    @property
    def forks(self) -> bool:
        """Whether each virtual service has its own process for checks."""
        fork = self.get("fork")
        return bool(fork and fork.value == "yes")

    def meaning(self) -> object:
        """Everything but line numbers and comments, to compare with another file's."""
        return (
            [(setting.name, setting.value) for setting in self.settings],
            [
                (
                    service.address,
                    [(setting.name, setting.value) for setting in service.settings],
                    [real.text for real in service.reals],
                )
                for service in self.services
            ],
        )


def _last(settings: Iterable[Setting], name: str) -> Setting | None:
    found = [setting for setting in settings if setting.name == name]
    return found[-1] if found else None


@lru_cache(maxsize=64)
def parse(text: str) -> LdirectordCf:
    """Read a file. Whether ldirectord accepts it, ldirectord says."""
    settings: list[Setting] = []
    services: list[Service] = []
    lines = list(numbered(text))
    position = stray = 0
    while position < len(lines):
        number, line = lines[position]
        position += 1
        virtual = re.match(r"virtual(6?)\s*=\s*(.*)", line)
        if virtual:
            body = _body(lines[position:])
            position += len(body)
            services += _section(number, virtual[2], body)
        elif line.strip() and not re.match(r"\s*#", line):
            found = _setting(number, line.strip())
            if services and found and found[0].name in OF_A_SERVICE:
                stray = stray or number
            elif not line[:1].isspace():
                settings += found
    return LdirectordCf(tuple(settings), tuple(services), stray)


def _body(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines of a virtual service: up to the first that is neither a comment nor indented enough."""
    for length, (_, line) in enumerate(lines):
        comment = re.match(r"\s*#", line)
        if not comment and not re.match(r" {4}.", _shown(line)):
            return lines[:length]
    return lines


def _shown(line: str) -> str:
    return line.partition("#")[0].replace("\t", "    ")


def _setting(number: int, line: str) -> list[Setting]:
    if line == "supervised":  # the only one that needs no value
        return [Setting(number, "supervised", "yes")]
    match = re.match(r"(\w+)\s*=\s*(.*)", line, re.ASCII)
    return [Setting(number, match[1], match[2])] if match else []


def _section(number: int, virtual: str, body: list[tuple[int, str]]) -> list[Service]:
    settings: list[Setting] = []
    reals: list[Real] = []
    for line_number, line in body:
        if re.match(r"\s*#", line):
            continue
        command = _shown(line)[4:].lstrip(" ")
        real = re.match(r"real6?\s*=\s*(.*)", command)
        if real:
            reals += _real(line_number, real[1])
        else:
            settings += _setting(line_number, command)
    port = re.match(r"(?:[0-9A-Za-z._+-]+|\[[0-9A-Fa-f:]+\]):([0-9A-Za-z_-]+)", virtual)
    mark = re.match(r"[0-9]+", virtual)
    if not port and not mark:
        return []
    number_of_port = _port_number(port[1]) if port else 0
    return [Service(number, virtual, number_of_port, not port, tuple(settings), tuple(reals))]


def _port_number(word: str) -> int | None:
    return int(word[:9]) if re.fullmatch(r"[0-9]+", word) else PORTS.get(word)


_SERVER = r"(?:[A-Za-z0-9.-]+?|\[[0-9A-Fa-f:]+\])"
_REAL = re.compile(rf"({_SERVER})(?:->({_SERVER}))?(?::([A-Za-z0-9_-]+))?\s+(.*)")


def _real(number: int, text: str) -> list[Real]:
    match = _REAL.search(text)
    forward = re.search(r"\w+", match[4], re.ASCII) if match else None
    if match is None or forward is None or forward[0] not in FORWARDING:
        return []
    check = re.search(r'\s"(.*)"[, ]\s*"(.*)"', match[4])
    return [
        Real(
            number,
            " ".join(text.split()),
            match[1],
            _count(match[1], match[2]),
            _port_number(match[3]) if match[3] else 0,
            forward[0],
            has_request=bool(check and check[1]),
            has_receive=bool(check and check[2]),
        )
    ]


def _count(first: str, last: str | None) -> int:
    """How many servers ``first->last`` are."""
    if last is None:
        return 1
    try:
        return max(1, int(IPv4Address(last)) - int(IPv4Address(first)) + 1)
    except ValueError:
        return 1  # names: their addresses are not known here
