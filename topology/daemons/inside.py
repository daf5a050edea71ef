"""What the real programs say about a node's configuration. Runs in a container of the node's image; stdlib only.

Nothing is started: every program only reads its files. Prints a JSON list of the complaints. The container has no
network; its interfaces have the node's names and addresses, because heartbeat looks for them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

LIMIT_S = 20
"""For one question; each is answered in less than 1 s on an idle machine."""
MOST_REFUSALS = 10
"""Of one ldirectord.cf: ldirectord reports one at a time, so each costs a question."""
HA_CF, HARESOURCES, AUTHKEYS = Path("/etc/ha.d/ha.cf"), Path("/etc/ha.d/haresources"), Path("/etc/ha.d/authkeys")
SYSLOG = Path("/dev/log")
HEARTBEAT = "/usr/libexec/heartbeat/heartbeat"
ACCEPTED = 6
"""The exit code of ``heartbeat -R`` after it has read its files, when no heartbeat runs (hb_signal.h, LSB_NOT_RUNNING
plus 3 in heartbeat 3.0.6); 1 is a refusal."""
SCRIPTS = ("/etc/ha.d/resource.d", "/etc/init.d")
"""Where ResourceManager looks for a resource's script."""
REFUSES = "refuses to start"


@dataclass(frozen=True)
class Complaint:
    """What a program says about a file. ``line`` is 0 when it names none; ``times`` counts lines of the same text."""

    program: str
    path: str
    line: int
    message: str
    effect: str = REFUSES
    times: int = 1


@dataclass(frozen=True)
class Answer:
    """The result of a question."""

    code: int
    text: str


def ask(*argv: str) -> Answer:
    """Run a program that only reads. A program that does not end has no answer: code -1."""
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL, cwd="/"
        )
    except subprocess.TimeoutExpired:
        return Answer(-1, f"no answer within {LIMIT_S} s")
    except OSError as error:
        return Answer(-1, str(error))
    return Answer(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))


def read(path: Path | str) -> str:
    """A file's text; empty without one."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


# --- ldirectord


def ldirectord(path: str) -> Iterator[Complaint]:
    """``ldirectord FILE status`` reads the file and says whether a daemon runs (ld_init of ldirectord 4.12)."""
    original = read(path)
    lines = original.split("\n")
    for _ in range(MOST_REFUSALS):
        answer = ask("/usr/sbin/ldirectord", path, "status")
        refusal = ldirectord_refusal(answer.text)
        if refusal is None:
            break
        number, message = refusal
        same = same_lines(lines, number)
        yield Complaint("ldirectord", path, number, message, times=len(same))
        if not number:
            break
        for place in [*same, *body_of(lines, number)]:
            lines[place - 1] = "#"
        # shorter than the original never: the numbers of the other lines stay
        Path(path).write_text("\n".join(lines), "utf-8")
    Path(path).write_text(original, "utf-8")
    yield from receives(path, original)
    yield from commands(path, original)


COMPILE = 'for (@ARGV) { eval { qr/$_/ }; my $why = $@; $why =~ s/ at -e.*//s; $why =~ s/\\n/ /g; print "$why\\n" }'


def receives(path: str, text: str) -> Iterator[Complaint]:
    """Regular expressions that perl cannot read: ldirectord uses them in its checks, not when it reads the file."""
    found = patterns(text)
    unique = list(dict.fromkeys(found.values()))
    answers = ask("/usr/bin/perl", "-e", COMPILE, *unique).text.split("\n") if unique else []
    why = dict(zip(unique, answers, strict=False))
    for number, pattern in found.items():
        if why.get(pattern):
            yield Complaint("ldirectord", path, number, why[pattern], "starts, and dies at the first check")


def patterns(text: str) -> dict[int, str]:
    """What answers are compared with: the receive of a virtual service, or that of a real server; by line."""
    found = {}
    for number, line in enumerate(text.split("\n"), 1):
        service = re.search(r'^\s+receive\s*=\s*"(.*)"', line)
        server = re.search(r'^\s+real6?\s*=.*"[^"]*"[, ]\s*"(.*)"', line)
        if match := service or server:
            found[number] = match[1]
    return found


def commands(path: str, text: str) -> Iterator[Complaint]:
    """External checks without their program: ldirectord runs it without a shell, and 127 counts as down."""
    for number, line in enumerate(text.split("\n"), 1):
        found = re.match(r'\s+checkcommand\s*=\s*(?:"(.*)"|(.*))', line.partition("#")[0].rstrip())
        command = (found[1] or found[2] or "") if found else ""
        if command and not shutil.which(command):
            hint = " (it takes no arguments of its own)" if " " in command else ""
            why = f"there is no program {command[:60]!r} on this node{hint}"
            yield Complaint("ldirectord", path, number, why, "never puts a real server into service")


def ldirectord_refusal(text: str) -> tuple[int, str] | None:
    """(line, message) of the error that ldirectord stopped at; None without one (config_error of ldirectord 4.12)."""
    found = re.search(r"^Error \[\d+\](?: reading file \S+)?(?: at line (\d+))?: (.*)", text, re.MULTILINE)
    return (int(found[1] or 0), found[2].strip()) if found else None


def same_lines(lines: Sequence[str], number: int) -> list[int]:
    """The numbers of the refused line and, below it, of lines with the same text, which are refused for the same.

    Not for the first line of a virtual service: that it is there twice may be the refusal.
    """
    if not 0 < number <= len(lines):
        return [number] if number else []
    text = lines[number - 1].strip()
    if text.startswith("virtual"):
        return [number]
    return [place for place, line in enumerate(lines, 1) if place >= number and line.strip() == text]


def body_of(lines: Sequence[str], number: int) -> list[int]:
    """The numbers of the lines that are left without meaning when a line is left out.

    Those are the body of a virtual service, and further lines of a body that ldirectord did not take for one.
    """
    if not 0 < number <= len(lines):
        return []
    refused = lines[number - 1]
    is_virtual = refused.startswith("virtual")
    is_body = re.match(r"\s*(real6?|service|request|receive|checktype|scheduler|protocol|persistent)\b", refused)
    found = []
    if is_virtual or (is_body and not re.match(r"( {4}|\t)", refused)):
        for place in range(number + 1, len(lines) + 1):
            line = lines[place - 1]
            if line.startswith("virtual") or not line.strip() or (is_virtual and not line[:1].isspace()):
                break
            found.append(place)
    return found


# --- heartbeat


def heartbeat() -> Iterator[Complaint]:
    """``heartbeat -R`` reads its 3 files before it looks for the heartbeat to restart."""
    yield from resources(read(HARESOURCES), _is_script)
    first = _heartbeat()
    if first.code == ACCEPTED:
        return
    files = {path: read(path) for path in (HA_CF, HARESOURCES, AUTHKEYS)}
    yield from about_haresources(first.text, files[HARESOURCES])
    # heartbeat stops at the first file that it refuses: the others are tried with right ones beside them
    HARESOURCES.write_text(f"{os.uname().nodename} IPaddr2::192.0.2.1\n", "utf-8")
    yield from about_authkeys(_try(around("", "")).text, files[AUTHKEYS])
    AUTHKEYS.write_text("auth 1\n1 crc\n", "utf-8")
    AUTHKEYS.chmod(0o600)
    alone = _try(files[HA_CF])
    if alone.code != ACCEPTED:
        yield from ha_cf(files[HA_CF], alone)


def resources(text: str, is_script: Callable[[str], bool]) -> Iterator[Complaint]:
    """Resources without a script, which ResourceManager looks for when it starts a group (its function scriptpath)."""
    there = [path.name for folder in SCRIPTS for path in Path(folder).glob("*")]
    reported = set()
    start = 0
    pending = ""
    for number, line in enumerate(text.split("\n"), 1):
        start = start if pending else number
        pending += line.partition("#")[0].rstrip("\r")
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        for word in pending.split()[1:]:
            name = word.split("::")[0]
            if not name[:1].isdigit() and name not in reported and not is_script(name):
                reported.add(name)
                near = difflib.get_close_matches(name, there, n=1, cutoff=0.7)
                hint = f"; did you mean {near[0]}?" if near else ""
                why = f"there is no script {name[:40]} in {' or '.join(SCRIPTS)}, so both directors give it up{hint}"
                yield Complaint("heartbeat", str(HARESOURCES), start, why, "cannot start this group")
        pending = ""


def _is_script(name: str) -> bool:
    return any(os.access(f"{folder}/{name}", os.X_OK) for folder in SCRIPTS)


def ha_cf(original: str, first: Answer) -> Iterator[Complaint]:
    """The refused lines of ha.cf. heartbeat names few lines, so each is tried alone in a file that it accepts.

    Then the rest of the file is tried: a line without which it is accepted contradicts another one.
    """
    lines = original.split("\n")
    refused: set[int] = set()
    for number, line in enumerate(lines, 1):
        if name := directive(line):
            answer = _try(around(name, line))
            if answer.code != ACCEPTED:
                refused.add(number)
                yield Complaint(
                    "heartbeat", str(HA_CF), number, said(answer.text) or f"{line.strip()[:60]!r} (it does not say why)"
                )
    if any(directive(lines[number - 1]) in MEDIA | TIMES for number in refused):
        return  # that no medium is left, or that the others do not fit a default, would follow from it
    rest = without(lines, refused)
    answer = _try(rest) if refused else first
    if answer.code == ACCEPTED:
        return
    culprits = [
        number
        for number, line in enumerate(lines, 1)
        if directive(line) and number not in refused and _try(without(lines, {*refused, number})).code == ACCEPTED
    ]
    why = said(answer.text) or "(it does not say why; without this line it accepts the file)"
    yield Complaint("heartbeat", str(HA_CF), culprits[-1] if culprits else line_about(answer.text, lines), why)


def line_about(text: str, lines: Sequence[str]) -> int:
    """The line of the directive that an error is about, where no single line is at fault; 0 without one."""
    name = next((name for words, name in ABOUT.items() if words in text), "")
    return max((number for number, line in enumerate(lines, 1) if directive(line) == name != ""), default=0)


def directive(line: str) -> str:
    """The name of the directive on a line of ha.cf; empty for none."""
    words = line.partition("#")[0].split()
    return words[0] if words else ""


MEDIA = frozenset({"bcast", "mcast", "mcast6", "serial", "ucast", "ucast6", "udp"})
TIMES = frozenset({"keepalive", "deadtime", "deadping", "initdead", "warntime"})
ABOUT = {
    "Initial dead time": "initdead",
    "Ping dead time": "deadping",
    "Dead time": "deadtime",
    "Current node": "node",
}
"""What heartbeat calls a directive in its errors (heartbeat/config.c)."""
LONG = "999999"
"""In s; below the longest time that heartbeat takes."""


def around(name: str, line: str) -> str:
    """The line in a file that heartbeat accepts without it, whatever time the line sets."""
    base = {
        "logfile": "/var/log/ha-log",
        "keepalive": "1ms",
        "deadtime": LONG if name == "keepalive" else "3ms",
        "initdead": LONG if name in {"keepalive", "deadtime"} else "3ms",
        "node": os.uname().nodename,
        "auto_failback": "on",
        "crm": "no",
    }
    instead = {"pacemaker": "crm", "nice_failback": "auto_failback"}.get(name, name)
    kept = [f"{key} {value}" for key, value in base.items() if key != instead]
    # the last node line may lack this node: the whole file must have it, not this one
    own = [f"node {base['node']}"] if name == "node" else []
    return "\n".join([*kept, line, *own, "ucast lo 127.0.0.1", ""])


def without(lines: Sequence[str], left_out: Iterable[int]) -> str:
    """The text without these lines."""
    gone = set(left_out)
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in gone)


def _try(text: str) -> Answer:
    HA_CF.write_text(text, "utf-8")
    return _heartbeat()


def _heartbeat() -> Answer:
    """One question, with all that heartbeat logs, wherever it logs it: to files, or to syslog."""
    logs = {Path(found) for found in re.findall(r"(?m)^\s*(?:logfile|debugfile)\s+(/\S+)", read(HA_CF))}
    logs.add(Path("/var/log/ha-log"))
    for log in [*logs, SYSLOG]:
        log.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(SYSLOG))
        syslog.setblocking(False)
        answer = ask(HEARTBEAT, "-R")
        sent = "".join(f"{message}\n" for message in _received(syslog))
    return Answer(answer.code, "\n".join([answer.text, *(read(log) for log in sorted(logs)), sent]))


def _received(syslog: socket.socket) -> Iterator[str]:
    while True:
        try:
            yield syslog.recv(65536).decode("utf-8", "replace")
        except BlockingIOError:
            return


CONSEQUENCES = re.compile(
    r"Heartbeat not started|Config errors|Authentication configuration error|configuration error|Table size:"
    r"|Lookup extended|returned \d+: No such plugin|Illegal configuration directive|heartbeat is not running"
)
"""Messages that follow from another one."""


def errors(text: str) -> list[str]:
    """The errors that heartbeat logged (cl_log.c), and those that it prints before it can log; each once."""
    logged = re.findall(r"(?:ERROR|CRIT|EMERG): (?:glib: )?(.*)", text)
    printed = re.findall(r"heartbeat: (invalid .*)", text)
    return [each.strip() for each in dict.fromkeys([*printed, *logged]) if not CONSEQUENCES.search(each)]


def said(text: str) -> str:
    """heartbeat's errors about ha.cf in one line."""
    return "; ".join(error for error in errors(text) if "haresources" not in error and "keyfile" not in error)


def about_haresources(text: str, haresources: str) -> Iterator[Complaint]:
    """The errors about haresources."""
    for error in errors(text):
        if "haresources" in error:
            words = re.findall(r"\[([^\]]*)\]", error)
            lines = [n for n, line in enumerate(haresources.split("\n"), 1) if words and words[-1] in line]
            yield Complaint("heartbeat", str(HARESOURCES), lines[0] if lines else 0, error)


def about_authkeys(text: str, authkeys: str) -> Iterator[Complaint]:
    """The errors about authkeys, where heartbeat accepts the rest. No secret is repeated: those words are left out."""
    secrets = {word for word in authkeys.split() if len(word) > 2 and word not in {"sha1", "md5", "crc", "auth"}}
    for error in errors(text):
        number = re.search(r"\[(\d+)\]", error)
        lines = [
            n
            for n, line in enumerate(authkeys.split("\n"), 1)
            if number and re.match(rf"\s*(auth\s+)?{number[1]}\b", line)
        ]
        yield Complaint("heartbeat", str(AUTHKEYS), lines[0] if lines else 0, _without(error, secrets))


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "...")
    return text


# --- the others


def apache() -> Iterator[Complaint]:
    """``apache2 -t``."""
    for folder in ("/run/apache2", "/run/lock/apache2"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    answer = ask("/bin/sh", "-c", ". /etc/apache2/envvars; exec /usr/sbin/apache2 -t")
    if answer.code:
        yield from apache_errors(answer.text)


def apache_errors(text: str) -> Iterator[Complaint]:
    """The refusal in Apache's words: a line that names the file, and the line below it that says why."""
    lines = [line for line in text.splitlines() if line.strip()]
    for place, line in enumerate(lines):
        if found := re.search(r"[Ss]yntax error on line (\d+) of (\S+?):\s*(.*)", line):
            why = found[3] or (lines[place + 1] if place + 1 < len(lines) else "")
            yield Complaint("apache2", found[2], int(found[1]), why.strip())
            return
    told = [line for line in lines if not re.match(r"AH0055[78]|Action '", line)]
    yield Complaint("apache2", "/etc/apache2/apache2.conf", 0, "; ".join(told)[:300])


def mariadb(paths: Sequence[str]) -> Iterator[Complaint]:
    """``mariadbd --help --verbose`` reads all option files, and refuses what the server refuses; 10.11 has no
    ``--validate-config``.
    """
    answer = ask("/usr/sbin/mariadbd", "--user=mysql", "--help", "--verbose")
    yield from mariadb_errors(answer.text, {path: read(path) for path in paths})


def mariadb_errors(text: str, files: dict[str, str]) -> Iterator[Complaint]:
    """MariaDB's errors, each with the file and line that has its option."""
    for error in dict.fromkeys(re.findall(r"(?m)^(?:.*\[ERROR\] |error: )(.*)", text)):
        placed = re.search(r"in config file: (\S+) at line: (\d+)", error)
        option = re.search(r"(?:variable|option|to|setting value '[^']*' to) '-{0,2}([\w-]+)", error)
        if placed:
            path, line = placed[1], int(placed[2])
        else:
            path, line = option_line(option[1] if option else "", files)
        yield Complaint("mariadbd", path, line, re.sub(r"^\S*mariadbd: ", "", error).strip())


def option_line(option: str, files: dict[str, str]) -> tuple[str, int]:
    """The last file and line that set an option; ``-`` and ``_`` are the same."""
    found = [
        (path, number)
        for path, text in files.items()
        for number, line in enumerate(text.split("\n"), 1)
        if option and line.strip().replace("-", "_").startswith(option.replace("-", "_"))
    ]
    return found[-1] if found else (next(reversed(files), "/etc/mysql/my.cnf"), 0)


def exports() -> Iterator[Complaint]:
    """``exportfs -ra`` reads /etc/exports and /etc/exports.d; there is no NFS server to tell."""
    yield from exportfs_errors(ask("/usr/sbin/exportfs", "-ra").text)


def exportfs_errors(text: str) -> Iterator[Complaint]:
    """Errors with a line; that a folder is not there yet is none."""
    for path, line, message in re.findall(r"(?m)^exportfs: (/\S+?):(\d+): (.*)", text):
        yield Complaint("exportfs", path, int(line), message, "does not export what it refuses")


def gmond(path: str) -> Iterator[Complaint]:
    """``gmond -m`` reads its file and lists its metrics."""
    answer = ask("/usr/sbin/gmond", "-m", "-c", path)
    if answer.code:
        yield gmond_error(path, answer.text, read(path))


def gmond_error(path: str, text: str, content: str) -> Complaint:
    """libConfuse stops at the first error. It names no file and line inside some sections, only the word."""
    if placed := re.search(r"(?m)^(/\S+?):(\d+): (.*)", text):
        return Complaint("gmond", placed[1], int(placed[2]), placed[3])
    message = next((line for line in text.splitlines() if line.strip()), "it does not say why")
    return Complaint("gmond", path, line_with(re.search(r"'([^']+)'", message), content), message)


def line_with(word: re.Match[str] | None, content: str) -> int:
    """The first line that has a word; 0 without one."""
    lines = enumerate(content.split("\n"), 1)
    return next((number for number, line in lines if word and word[1] in line), 0)


def gmetad(path: str) -> Iterator[Complaint]:
    """gmetad has no test: a copy of its file names a user that does not exist, at which gmetad stops after reading."""
    text = read(path)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as copy:
        copy.write(text + '\nsetuid on\nsetuid_username "no-such-user"\n')
        copy.flush()
        answer = ask("/usr/sbin/gmetad", "--debug=1", f"--conf={copy.name}")
    for message in re.findall(r"gmetad config file error: (.*)", answer.text):
        yield Complaint("gmetad", path, line_with(re.search(r"'([^']+)'", message), text), message)


def keepalived(path: str) -> Iterator[Complaint]:
    """``keepalived -t``, where it is installed."""
    program = shutil.which("keepalived")
    if program is None:
        yield Complaint("keepalived", path, 0, "it is not installed on this node", "does not read the file")
        return
    yield from keepalived_errors(path, ask(program, "-t", "-f", path, "--log-console").text)


def keepalived_errors(path: str, text: str) -> Iterator[Complaint]:
    """The messages with a line (keepalived 2.2)."""
    for line, message in re.findall(r"Line (\d+)\) (.*)", text):
        yield Complaint("keepalived", path, int(line), message, "reports")


def sysctl(path: str) -> Iterator[Complaint]:
    """``sysctl --dry-run -p``. Which keys exist depends on the node's kernel, so only the syntax counts here."""
    answer = ask("/sbin/sysctl", "--dry-run", "-e", "-p", path)
    for line in re.findall(r"\((\d+)\): invalid syntax", answer.text):
        yield Complaint("sysctl", path, int(line), "invalid syntax", "skips the line")


def script(path: str) -> Iterator[Complaint]:
    """``sh -n``, or the shell that the first line names."""
    first = read(path).partition("\n")[0]
    named = re.match(r"#!\s*(?:/usr/bin/env\s+)?(?:\S*/)?((?:ba|da)?sh)\b", first)
    if first.startswith("#!") and not named:
        return
    shell = named[1] if named else "sh"
    yield from shell_errors(path, shell, ask(shell, "-n", path).text)


def shell_errors(path: str, shell: str, text: str) -> Iterator[Complaint]:
    """What a shell says that it cannot read."""
    for line, message in re.findall(rf"(?m)^{re.escape(path)}: (?:line )?(\d+): (.*)", text):
        yield Complaint(f"{shell} -n", path, int(line), message, "does not run the script")
        return


def prepare(interfaces: Sequence[str]) -> None:
    """The node's names, interfaces and addresses."""
    hosts = read("/etc/monkeywrench/hosts")
    if hosts:
        Path("/etc/hosts").write_text(hosts, "utf-8")
    for interface in interfaces:
        subprocess.run(
            ["ip", "link", "add", interface, "type", "veth", "peer", "name", f"{interface}-peer"], check=False
        )
    # lines about what only a node's own kernel has are refused here, and left out
    subprocess.run(
        ["ip", "-force", "-batch", "/etc/monkeywrench/network.batch"],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def complaints(wanted: dict[str, list[str]]) -> Iterator[Complaint]:
    """All complaints about these files: program -> paths."""
    by_file = {
        "ldirectord": ldirectord,
        "gmond": gmond,
        "gmetad": gmetad,
        "keepalived": keepalived,
        "sysctl": sysctl,
        "sh": script,
    }
    for program, paths in wanted.items():
        if program == "heartbeat":
            yield from heartbeat()
        elif program == "apache2":
            yield from apache()
        elif program == "mariadbd":
            yield from mariadb(paths)
        elif program == "exportfs":
            yield from exports()
        else:
            for path in paths:
                yield from by_file[program](path)


def main() -> None:
    """Read the question from standard input's place, the file beside this one; print the answer."""
    question = json.loads(read(Path(__file__).parent / "question.json"))
    prepare(question["interfaces"])
    found = [asdict(replace(each, message=each.message[:400])) for each in complaints(question["programs"])]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
