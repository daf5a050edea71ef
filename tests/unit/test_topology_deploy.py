"""A site as it is packed to be deployed; that it arrives is for the lab's tests."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from harness.records import LabError
from topology.lab.deploy import pack


def unpacked(folder: Path) -> tuple[list[tarfile.TarInfo], dict[str, bytes]]:
    """What is in the archive of a folder: its members, and the content of each by its name."""
    with tarfile.open(fileobj=io.BytesIO(pack(folder))) as archive:
        members = archive.getmembers()
        files = [(member.name, archive.extractfile(member)) for member in members]
        return members, {name: file.read() for name, file in files if file is not None}


def test_a_site_is_packed_with_modes_and_dates_and_is_roots(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "pages").mkdir(parents=True)
    for name, mode in (("index.php", 0o644), ("pages/news.html", 0o600), (".htaccess", 0o755)):
        (site / name).write_text(f"this is {name}")
        (site / name).chmod(mode)
        os.utime(site / name, (1_000_000_000, 1_000_000_000))
    if os.geteuid() == 0:
        os.chown(site / "index.php", 33, 33)
    members, content = unpacked(site)
    # Relative names: they are unpacked below wherever the site is.
    assert content == {name: f"this is {name}".encode() for name in ("index.php", "pages/news.html", ".htaccess")}
    assert {member.name: member.mode & 0o777 for member in members} == {
        "index.php": 0o644,
        "pages/news.html": 0o600,
        ".htaccess": 0o755,
    }
    assert {member.mtime for member in members} == {1_000_000_000}
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "root", "root")}


def test_a_link_is_packed_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    """What it leads to is not on the node."""
    (tmp_path / "shared.css").write_text("body {}")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "style.css").symlink_to("../shared.css")
    (member,), content = unpacked(tmp_path / "site")
    assert member.isfile()
    assert content == {"style.css": b"body {}"}


@pytest.mark.parametrize("made", [[], ["site"], ["site", "site/pages"]])
def test_without_a_file_it_is_no_site(tmp_path: Path, made: list[str]) -> None:
    for name in made:
        (tmp_path / name).mkdir()
    with pytest.raises(LabError, match="has no files"):
        pack(tmp_path / "site")
