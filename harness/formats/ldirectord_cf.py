"""ldirectord's configuration, as read_config of ldirectord 4.12 reads it. Pure.

The details matter: a virtual service ends at the first line that is not indented by 4 blanks or a tab, also at an
empty one; and values keep the blanks that follow them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

from harness.formats.lines import nearest, numbered, quoted

PATHS = ("/etc/ldirectord.cf", "/etc/ha.d/*.cf")

Refusal = tuple[int, str]
"""A line, and why ldirectord does not start with it."""

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
SERVICES = frozenset(SERVICE_PORTS.values()) | {"none", "simpletcp"}
PORTS = {name: port for port, name in SERVICE_PORTS.items()} | {"www": 80, "domain": 53, "postgresql": 5432}
"""Names of ports that configurations use; any other name is left alone."""
CHECKTYPES = frozenset({"connect", "negotiate", "ping", "off", "on", "external", "external-perl"})
FORWARDING = frozenset({"gate", "ipip", "masq"})

Check = Callable[[str], str]
"""A value -> what it must be; empty when it is right."""


def _number(value: str) -> str:
    digits = re.search(r"[0-9]+", value)
    return "" if digits and digits[0].strip("0") else "must be a number above 0"


def _digits(value: str) -> str:
    return "" if re.search(r"[0-9]", value) else "must be a number"


def _port(value: str) -> str:
    digits = re.search(r"[0-9]+", value)
    return "" if digits and 0 < int(digits[0][:9]) < 65536 else "must be a port"


def _yes_no(value: str) -> str:
    return "" if value in {"yes", "no"} else "must be yes or no with nothing after it, neither a blank nor a comment"


def _quoted(value: str) -> str:
    return "" if re.match(r'"(.*)"', value) else "must be in double quotes"


def _filled(value: str) -> str:
    return "" if re.match(r'"(.+)"', value) else "must be in double quotes and not empty"


def _something(value: str) -> str:
    return "" if value else "must not be empty"


def _anything(_: str) -> str:
    return ""


def _checktype(value: str) -> str:
    word = re.search(r"[\w-]+", value, re.ASCII)
    known = re.search(r"[0-9]", value) or (word and word[0] in CHECKTYPES)
    return "" if known else f"must be a number or one of {', '.join(sorted(CHECKTYPES))}"


def _service(value: str) -> str:
    word = re.search(r"\w+", value, re.ASCII)
    return "" if word and word[0] in SERVICES else f"must be one of {', '.join(sorted(SERVICES))}"


def _scheduler(value: str) -> str:
    return "" if re.search(r"[a-z]", value) else "must be lower case letters"


def _protocol(value: str) -> str:
    word = re.search(r"\w+", value, re.ASCII)
    return "" if word and word[0] in {"tcp", "udp", "fwm"} else "must be tcp, udp or fwm"


def _httpmethod(value: str) -> str:
    word = re.search(r"\w+", value, re.ASCII)
    return "" if word and word[0].upper() in {"GET", "HEAD"} else "must be GET or HEAD"


def _removed(_: str) -> str:
    return "is no longer supported; use checktimeout and negotiatetimeout"


BOTH: dict[str, Check] = {
    "checktimeout": _number,
    "negotiatetimeout": _number,
    "checkinterval": _number,
    "checkcount": _number,
    "failurecount": _number,
    "connecttimeout": _removed,
    "fallback": _something,
    "fallback6": _something,
    "fallbackcommand": _something,
    "quiescent": _yes_no,
    "cleanstop": _yes_no,
    "emailalert": _something,
    "emailalertfreq": _digits,
    "emailalertstatus": _anything,
    "smtp": _something,
}
"""Allowed outside virtual services and inside, where they take precedence."""

GLOBAL: dict[str, Check] = BOTH | {
    "timeout": _removed,
    "autoreload": _yes_no,
    "callback": _quoted,
    "logfile": _quoted,
    "execute": _anything,
    "fork": _yes_no,
    "supervised": _yes_no,
    "readdquiescent": _yes_no,
    "emailalertfrom": _something,
    "maintenancedir": _something,
}

SECTION: dict[str, Check] = BOTH | {
    "request": _filled,
    "receive": _filled,
    "checktype": _checktype,
    "checkcommand": _something,
    "checkport": _port,
    "login": _filled,
    "passwd": _filled,
    "database": _filled,
    "secret": _filled,
    "load": _filled,
    "scheduler": _scheduler,
    "persistent": _digits,
    "schedflags": _something,
    "netmask": _something,
    "protocol": _protocol,
    "ops": _yes_no,
    "service": _service,
    "httpmethod": _httpmethod,
    "virtualhost": _anything,
    "monitorfile": _something,
    "servicename": _anything,
    "comment": _anything,
}


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
    """A whole file, and the lines for which ldirectord refuses to start."""

    settings: tuple[Setting, ...]
    services: tuple[Service, ...]
    refused: tuple[Refusal, ...]

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
    """Read a file. Lines that ldirectord rejects are noted, and the rest is still read."""
    settings: list[Setting] = []
    services: list[Service] = []
    refused: list[Refusal] = []
    lines = list(numbered(text))
    position = 0
    orphaned = False  # one refusal for all lines that an early end cuts off from their virtual service
    while position < len(lines):
        number, line = lines[position]
        position += 1
        indented = line[:1] in {" ", "\t"}
        virtual = re.match(r"virtual(6?)\s*=\s*(.*)", line)
        if virtual:
            body = _body(lines[position:])
            position += len(body)
            orphaned = False
            services += _section(number, virtual[2], body, refused)
        elif line.strip() and not re.match(r"\s*#", line) and not (indented and orphaned):
            settings += _setting(number, line, GLOBAL, refused)
            orphaned = indented
    return LdirectordCf(tuple(settings), tuple(services), tuple(refused))


def _body(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines of a virtual service: up to the first that is neither a comment nor indented enough."""
    for length, (_, line) in enumerate(lines):
        comment = re.match(r"\s*#", line)
        if not comment and not re.match(r" {4}.", _shown(line)):
            return lines[:length]
    return lines


def _shown(line: str) -> str:
    return line.partition("#")[0].replace("\t", "    ")


def _setting(number: int, line: str, known: Mapping[str, Check], refused: list[Refusal]) -> list[Setting]:
    if line == "supervised":  # the only one that needs no value
        return [Setting(number, "supervised", "yes")]
    match = re.match(r"(\w+)\s*=\s*(.*)", line, re.ASCII)
    if match is None or match[1] not in known:
        name = match[1] if match else line.strip()
        indented = known is GLOBAL and line[:1] in {" ", "\t"}
        why = (
            " (the virtual service above ended at a line that is empty or has an indent of less than 4 blanks)"
            if indented and name.partition("=")[0].strip() in {*SECTION, "real", "real6"}
            else nearest(name, known)
        )
        refused.append((number, f"ldirectord refuses to start: unknown command {quoted(name)}{why} [ldirectord(8)]"))
        return []
    complaint = known[match[1]](match[2])
    if complaint:
        refused.append((number, f"ldirectord refuses to start: {match[1]} {complaint} [ldirectord]"))
        return []
    return [Setting(number, match[1], match[2])]


def _section(number: int, virtual: str, body: list[tuple[int, str]], refused: list[Refusal]) -> list[Service]:
    settings: list[Setting] = []
    reals: list[Real] = []
    for line_number, line in body:
        if re.match(r"\s*#", line):
            continue
        command = _shown(line)[4:].lstrip(" ")
        real = re.match(r"real6?\s*=\s*(.*)", command)
        if real:
            reals += _real(line_number, real[1], refused)
        else:
            settings += _setting(line_number, command, SECTION, refused)
    port = re.match(r"(?:[0-9A-Za-z._+-]+|\[[0-9A-Fa-f:]+\]):([0-9A-Za-z_-]+)", virtual)
    mark = re.match(r"[0-9]+", virtual)
    if not port and not mark:
        refused.append(
            (number, f"ldirectord refuses to start: {quoted(virtual)} is not an address and port [ldirectord]")
        )
        return []
    number_of_port = _port_number(port[1]) if port else 0
    return [Service(number, virtual, number_of_port, not port, tuple(settings), tuple(reals))]


def _port_number(word: str) -> int | None:
    return int(word[:9]) if re.fullmatch(r"[0-9]+", word) else PORTS.get(word)


_SERVER = r"(?:[A-Za-z0-9.-]+?|\[[0-9A-Fa-f:]+\])"
_REAL = re.compile(rf"({_SERVER})(?:->({_SERVER}))?(?::([A-Za-z0-9_-]+))?\s+(.*)")


def _real(number: int, text: str, refused: list[Refusal]) -> list[Real]:
    match = _REAL.search(text)
    forward = re.search(r"\w+", match[4], re.ASCII) if match else None
    if match is None or forward is None or forward[0] not in FORWARDING:
        what = "must have an address, a port, and gate, ipip or masq"
        refused.append((number, f"ldirectord refuses to start: a real line {what} [ldirectord(8)]"))
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
