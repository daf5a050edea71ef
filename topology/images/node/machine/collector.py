#!/usr/bin/python3
"""Sample this node's parts of the cluster, and print a JSON object per line, until killed.

``collector.py '[{"what": "nfs", "every_s": 1, "folder": "/srv/uploads"}, ...]'``: each entry is sampled periodically,
on a thread of its own, so that one that hangs (on a mount whose server is down) does not block the others.

A line is ``{"what", "type", "value", "error"?}``, as an op of the history. A collector that only observes prints
``info``; one that tries something prints ``invoke`` and then ``ok``, ``fail``, or nothing while it hangs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))  # python -I leaves this folder out of the path
import dnsquery

TYPE_CHECKING = False  # typing takes longer to import than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Value = dict[str, Any]
    Record = Callable[..., None]

TIMEOUT_S = 2
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
NICE = 10
"""A collector must not slow down what it samples; a director has one processor."""

# --- the virtual service's table

NETLINK_GENERIC, NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 16, 1, 0x300, 2, 3  # linux/netlink.h
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2  # linux/genetlink.h
IPVS_CMD_GET_SERVICE, IPVS_CMD_GET_DEST, IPVS_CMD_ATTR_SERVICE, IPVS_CMD_ATTR_DEST = 4, 8, 1, 2  # linux/ip_vs.h
SERVICE_AF, SERVICE_PROTOCOL, SERVICE_ADDR, SERVICE_PORT = 1, 2, 3, 4
DEST_ADDR, DEST_WEIGHT, DEST_ACTIVE, DEST_INACTIVE, DEST_STATS64 = 1, 4, 7, 8, 12
STATS_CONNS = 1
NESTED, TYPE_MASK = 0x8000, 0x3FFF  # linux/netlink.h
TABLE_BYTES = 65536


def attribute(kind: int, content: bytes) -> bytes:
    """One netlink attribute: length, type, content, padded to four bytes. Pure."""
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def attributes(content: bytes) -> dict[int, bytes]:
    """The netlink attributes of a message, by type. Pure."""
    found = {}
    while len(content) >= 4:
        length, kind = struct.unpack_from("=HH", content)
        found[kind & TYPE_MASK] = content[4:length]
        content = content[length + 3 & ~3 :]
    return found


def number(content: bytes) -> int:
    """An unsigned number of the kernel, of 2, 4 or 8 bytes. Pure."""
    return int.from_bytes(content, sys.byteorder)


def server_row(dest: dict[int, bytes]) -> dict[str, int]:
    """A real server's numbers from its attributes. Pure."""
    return {
        "weight": number(dest[DEST_WEIGHT]),
        "active": number(dest[DEST_ACTIVE]),
        "inactive": number(dest[DEST_INACTIVE]),
        "conns": number(attributes(dest[DEST_STATS64])[STATS_CONNS]),
    }


class Netlink:
    """IPVS over generic netlink, as ipvsadm asks it: starting ipvsadm takes 45 ms of a director's processor."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.socket.bind((0, 0))
        name = attribute(CTRL_ATTR_FAMILY_NAME, b"IPVS\0")
        self.family = number(self.ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, name)[0][CTRL_ATTR_FAMILY_ID])

    def ask(self, family: int, command: int, flags: int, content: bytes) -> list[dict[int, bytes]]:
        """The attributes of each message of the answer. Raises OSError."""
        size = 20 + len(content)
        head = struct.pack("=IHHII", size, family, NLM_F_REQUEST | flags, 0, 0)
        self.socket.send(head + struct.pack("=BBH", command, 1, 0) + content)
        answers: list[dict[int, bytes]] = []
        while True:
            received = self.socket.recv(TABLE_BYTES)
            while received:
                length, kind = struct.unpack_from("=IH", received)
                if kind == NLMSG_DONE:
                    return answers
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", received, 16)[0]
                    raise OSError(code, os.strerror(code))
                answers.append(attributes(received[20:length]))
                received = received[length + 3 & ~3 :]
            if not flags & NLM_F_DUMP:
                return answers

    def table(self) -> dict[str, dict[str, dict[str, int]]]:
        """VIP -> real server's address -> numbers, of the virtual services for TCP over IPv4."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for answer in self.ask(self.family, IPVS_CMD_GET_SERVICE, NLM_F_DUMP, b""):
            service = attributes(answer[IPVS_CMD_ATTR_SERVICE])
            if SERVICE_ADDR not in service or number(service[SERVICE_AF]) != socket.AF_INET:
                continue  # one of a firewall mark has no address
            if number(service[SERVICE_PROTOCOL]) != socket.IPPROTO_TCP:
                continue
            wanted = (SERVICE_AF, SERVICE_PROTOCOL, SERVICE_ADDR, SERVICE_PORT)
            key = b"".join(attribute(kind, service[kind]) for kind in wanted)
            asked = attribute(IPVS_CMD_ATTR_SERVICE | NESTED, key)
            rows = [
                attributes(each[IPVS_CMD_ATTR_DEST])
                for each in self.ask(self.family, IPVS_CMD_GET_DEST, NLM_F_DUMP, asked)
            ]
            found[ipv4(service[SERVICE_ADDR])] = {ipv4(dest[DEST_ADDR]): server_row(dest) for dest in rows}
        return found


def ipv4(content: bytes) -> str:
    """An IPv4 address of the kernel, in a field with room for IPv6. Pure."""
    return socket.inet_ntoa(content[:4])


def table(wanted: Value, record: Record) -> None:
    """The IPVS table; ``nodes`` names the node of each real server's address.

    The kernel writes a real server's weight before its connections (net/netfilter/ipvs/ip_vs_ctl.c,
    ip_vs_genl_fill_dest): connections beyond those of a sample with weight 0 came after the weight was set.
    """
    if "netlink" not in wanted:
        wanted["netlink"] = Netlink()
    nodes, found = wanted["nodes"], wanted["netlink"].table()
    vips = {vip: {nodes.get(server, server): row for server, row in rows.items()} for vip, rows in found.items()}
    record("info", {"vips": vips})


# --- names


def parse_answer(question: bytes, answer: bytes) -> Value:
    """``rcode`` (RFC 1035 4.1.1), ``answers`` in their order, and ``ttl_s``. Pure. Raises ValueError."""
    found = dnsquery.read(question, answer)
    return {
        "rcode": RCODES.get(found["rcode"], str(found["rcode"])),
        "answers": [address for address, _ in found["records"]],
        "ttl_s": [ttl_s for _, ttl_s in found["records"]],
    }


def dns(wanted: Value, record: Record) -> None:
    """One query over UDP."""
    seq = wanted["seq"] = wanted.get("seq", -1) + 1
    question = dnsquery.query(wanted["site"], os.getpid() + seq)
    record("invoke", {"seq": seq})
    try:
        record("ok", {"seq": seq, **parse_answer(question, dnsquery.ask(wanted["resolver"], question, TIMEOUT_S))})
    except TimeoutError:
        record("info", {"seq": seq}, "timeout")
    except (OSError, ValueError) as error:
        record("fail", {"seq": seq}, str(error))


# --- data


def docroot(wanted: Value, record: Record) -> None:
    """The digest of each page, without files that rsync has not moved into place yet."""
    known: dict[str, tuple[tuple[int, int, int], str]] = wanted.setdefault("known", {})
    found: dict[str, tuple[tuple[int, int, int], str]] = {}
    for folder, folders, files in os.walk(wanted["folder"]):
        folders[:] = [each for each in folders if each != ".~tmp~"]
        for path in (os.path.join(folder, file) for file in files):
            with contextlib.suppress(OSError):  # it was removed just now
                seen = os.stat(path)
                version = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
                name = os.path.relpath(path, wanted["folder"])
                found[name] = known[name] if known.get(name, (None,))[0] == version else (version, digest(path))
    changed = found != known
    wanted["known"], now = found, time.monotonic()
    if changed or now >= wanted.get("next", 0):
        wanted["next"] = now + wanted["at_least_every_s"]
        record("info", {"files": {name: content for name, (_, content) in sorted(found.items())}})


def digest(path: str) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nfs(wanted: Value, record: Record) -> None:
    """Write, flush, read and remove a file."""
    path = os.path.join(wanted["folder"], f".collector-{socket.gethostname()}")
    content = str(time.monotonic_ns()).encode()
    began = time.monotonic()
    record("invoke", {})
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with open(path, "rb") as file:
            same = file.read() == content
        os.remove(path)
    except OSError as error:
        record("fail", {}, error.strerror or str(error))
        return
    if same:
        record("ok", {"ms": round((time.monotonic() - began) * 1000, 3)})
    else:
        record("fail", {}, "what was read is not what was written")


def database(wanted: Value, record: Record) -> None:
    """A statement on a connection of its own, by a client like the site's own pages."""
    if "client" not in wanted:
        argv = ["/usr/lib/monkeywrench/ask-database", str(wanted["patience_s"])]
        wanted["client"] = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    client = wanted["client"]
    record("invoke", {})
    client.stdin.write(wanted["statement"] + "\n")
    client.stdin.flush()
    ms, code, text = (*client.stdout.readline().strip().split(" ", 2), "", "", "")[:3]
    if code == "0":
        record("ok", {"ms": int(ms)})
    else:
        record("fail", {}, f"{code} {text}".strip() or "the client ended")


def backup(wanted: Value, record: Record) -> None:
    """The age of the backup, on this node's own clock; nothing while there is none."""
    with contextlib.suppress(OSError):
        age_s = time.time() - os.stat(f"{wanted['folder']}/current/backup.json").st_mtime
        record("info", {"of": wanted["of"], "age_s": round(age_s, 1)})


# --- monitoring, logs and clocks

_HOST = re.compile(r'<HOST NAME="([^"]*)"[^>]* TN="(\d+)"[^>]* TMAX="(\d+)"')


def parse_hosts(xml: str) -> dict[str, dict[str, int]]:
    """gmetad's XML (ganglia.dtd): host -> seconds since its last report, and the longest time that is normal. Pure."""
    return {name: {"tn_s": int(tn), "tmax_s": int(tmax)} for name, tn, tmax in _HOST.findall(xml)}


def ganglia(wanted: Value, record: Record) -> None:
    """The hosts that gmetad knows."""
    chunks: list[bytes] = []
    try:
        with socket.create_connection(("127.0.0.1", wanted["port"]), TIMEOUT_S) as connection:
            while chunk := connection.recv(65536):
                chunks.append(chunk)
    except OSError as error:
        record("fail", {}, str(error))
        return
    record("info", {"hosts": parse_hosts(b"".join(chunks).decode("latin-1"))})


def log(wanted: Value, record: Record) -> None:
    """The lines that were added to a file since the last sample; all of them, if it is another file now."""
    try:
        with open(wanted["path"], "rb") as file:
            seen = os.fstat(file.fileno())
            inode, read_to = wanted.setdefault("place", (seen.st_ino, seen.st_size))
            file.seek(read_to if seen.st_ino == inode and seen.st_size >= read_to else 0)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]  # the rest is still being written
            wanted["place"] = (seen.st_ino, file.tell() - len(content) + len(whole))
    except FileNotFoundError:
        wanted.setdefault("place", (0, 0))
        return
    for line in whole.decode(errors="replace").splitlines():
        record("info", {"service": wanted["service"], "line": line})


def clock(_: Value, record: Record) -> None:
    """This machine's own time of day."""
    record("info", {"wall_ns": time.time_ns()})


COLLECTORS = {each.__name__: each for each in (table, dns, docroot, nfs, database, backup, ganglia, log, clock)}


def watch(wanted: Value) -> None:
    """Sample one entry forever."""

    def record(kind: str, value: Value, error: str = "") -> None:
        line = {"what": wanted["what"], "type": kind, "value": value, **({"error": error} if error else {})}
        os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    sample = COLLECTORS[wanted["what"]]
    while True:
        began = time.monotonic()
        sample(wanted, record)
        time.sleep(max(0.0, began + wanted["every_s"] - time.monotonic()))


def main(text: str) -> None:
    """Sample all entries."""
    os.nice(NICE)
    threads = [threading.Thread(target=watch, args=(wanted,)) for wanted in json.loads(text)]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(sys.argv[1])
