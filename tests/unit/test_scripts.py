"""Shell scripts of the nodes, function by function, in the shell that the nodes have."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.formats import haresources

CASE = Path(__file__).parents[1] / "cases" / "config" / "78-fault-settle-other-spellings"
IMAGES = Path(__file__).parents[2] / "topology" / "images"
SERVICE = IMAGES / "node" / "machine" / "faults" / "service"
NO_PROCESS = 99_999_999
"""Above the kernel's largest process id (proc(5), pid_max)."""


def function(path: Path, name: str) -> str:
    """The text of one shell function."""
    found = re.search(rf"^{name}\(\) \{{.*?^\}}.*?$", path.read_text(), re.DOTALL | re.MULTILINE)
    assert found, name
    return found[0]


@pytest.mark.skipif(not shutil.which("dash"), reason="nodes run these scripts with dash, and it is not installed")
def test_a_process_that_ends_while_it_is_visited_has_no_children() -> None:
    """Its parent's children were taken for its own, and the visit went round until no file descriptor was left."""
    tree = function(SERVICE, "tree")
    script = f'{tree}\nvisit() {{ :; }}\nchildren={NO_PROCESS}\ntree {NO_PROCESS}\necho "$pids"'
    done = subprocess.run(["dash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{NO_PROCESS}\n")


def directors_script(words: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A function of addresses.sh, called on a file."""
    path = IMAGES / "director" / "addresses.sh"
    functions = "\n".join(function(path, name) for name in ("haresources", "comes_home"))
    return subprocess.run(
        ["sh", "-c", f'{functions}\n{words} "$@"', "sh", *argv], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "text",
    [
        (CASE / "haresources.txt").read_text(),
        "LB-1\tIPaddr::192.0.2.1/24/eth0 # IPaddr2::192.0.2.9\r\n#lb-2 192.0.2.8\nlb-2 ldirectord::x.cf 192.0.2.2\n",
        "lb-1 \\\n IPaddr2::192.0.2.1/24/eth0 \\\n 192.0.2.3/24/eth1\n",
    ],
)
def test_the_directors_scripts_read_haresources_as_the_reader_does(text: str, tmp_path: Path) -> None:
    file = tmp_path / "haresources"
    file.write_text(text, newline="")
    expected = [f"{group.node} {address}" for group in haresources.parse(text) for address in group.addresses]
    assert expected
    assert directors_script("haresources", str(file)).stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("text", "comes_home"),
    [
        ((CASE / "ha.cf.txt").read_text(), True),
        ("auto_failback  on # yes\n", True),
        ("auto_failback on\nauto_failback off\n", False),
        ("#auto_failback on\n", False),
        ("auto_failback legacy\n", False),
    ],
)
def test_the_directors_scripts_read_auto_failback(text: str, comes_home: bool, tmp_path: Path) -> None:
    file = tmp_path / "ha.cf"
    file.write_text(text)
    assert (directors_script("comes_home", str(file)).returncode == 0) == comes_home
