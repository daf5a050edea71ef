from __future__ import annotations

import pytest

from faults import FAULTS
from faults.data import database
from faults.data.backup import PAGE_BYTES, flipped, places
from faults.data.database import Answer, DatabaseFault, parse_answer
from faults.data.nfs import NfsOtherFsid, first_export
from faults.data.replication import wrapper
from faults.targets import parse_account, parse_settings
from harness.fake import FakeLab, FakeNode
from harness.records import LabError
from harness.wait import NotYet

DATA = [name for name in FAULTS if name.startswith("data.")]


@pytest.mark.parametrize("name", DATA)
def test_a_lab_without_data_gives_the_reason(name: str) -> None:
    reason = FAULTS[name]().available(FakeLab())
    assert reason is not None
    assert "no database" in reason or "no variable data" in reason or "no web data" in reason or "no backup" in reason


def with_database(answer: str) -> FakeLab:
    """A fake lab with a database that always gives its clients the same answer."""
    lab = FakeLab()
    lab.add(FakeNode(lab, "db", "db", prints={"mariadb": "0\n"}))
    lab.add(FakeNode(lab, "web-1", "web", prints={"sh": answer}))
    return lab


@pytest.mark.parametrize("name", [name for name in DATA if isinstance(FAULTS[name](), DatabaseFault)])
def test_a_healthy_database_is_no_proof(name: str) -> None:
    lab = with_database("3 0\n")
    fault = FAULTS[name]()
    assert isinstance(fault, DatabaseFault)
    with pytest.raises(NotYet, match=r"web-1 gets success|db is running"):
        fault.changes(lab)[0].proof()


def test_each_fault_of_the_database_is_proven_by_its_own_error() -> None:
    refusals = {"read-only": "1290 read-only", "out-of-connections": "1040 Too many", "locked": "1205 Lock wait"}
    for name, refusal in refusals.items():
        lab = with_database(f"7 {refusal}\n")
        proofs = {other: FAULTS[f"data.database-{other}"]() for other in refusals}
        for other, fault in proofs.items():
            assert isinstance(fault, DatabaseFault)
            proof = fault.changes(lab)[0].proof
            if other == name:
                assert refusal.split()[0] in proof()
            else:
                with pytest.raises(NotYet, match=f"error {refusal.split()[0]}"):
                    proof()


def test_answers_of_the_database() -> None:
    assert parse_answer("12 0\n") == Answer(12, 0)
    assert parse_answer("PHP Warning: x\n2003 2006 MySQL server has gone away\n") == Answer(
        2003, 2006, "MySQL server has gone away"
    )
    for nonsense in ("", "Killed\n", "12\n"):
        with pytest.raises(NotYet):
            parse_answer(nonsense)


def test_the_undo_restores_the_setting_that_was_read() -> None:
    lab = with_database("3 0\n")
    undo = database.DatabaseOutOfConnections().changes(lab)[0].undo
    assert undo[-1].argv[-1] == "SET GLOBAL max_connections = 0"  # what this fake server had
    assert undo[0].argv[-1].endswith("hold-connections 0$")


def test_exports() -> None:
    export = first_export("/srv/uploads  198.18.1.0/24(sync,fsid=1,rw,no_root_squash)\n")
    changed = NfsOtherFsid(fsid=7).changed(export)
    assert changed == ("exportfs", "-i", "-o", "sync,rw,no_root_squash,fsid=7", "198.18.1.0/24:/srv/uploads")
    with pytest.raises(LabError, match="fsid of /srv/uploads is already 1"):
        NfsOtherFsid(fsid=1).changed(export)
    with pytest.raises(LabError, match="exports nothing"):
        first_export("\n")


def test_accounts_of_replication() -> None:
    printed = '{"rounds": 3, "transfers": 6, "failed": ["web-2"], "problems": "not reached: web-2"}'
    assert parse_account(printed) == {"rounds": 3, "failed": ["web-2"], "problems": "not reached: web-2"}
    for nonsense in ("", "{}", "[]", "7"):
        with pytest.raises(NotYet):
            parse_account(nonsense)


def test_only_pushes_of_pages_are_cut() -> None:
    lines = wrapper(256).splitlines()
    assert lines[0] == "#!/bin/sh"
    assert [line for line in lines if "timeout" in line] == [line for line in lines if "--delay-updates" in line]
    assert "--bwlimit=256" in wrapper(256)
    assert lines[-1] == 'exec /usr/bin/rsync "$@"'


@pytest.mark.parametrize(("size", "offsets"), [(0, []), (1, [0]), (100, [50]), (PAGE_BYTES, [8192])])
def test_where_bytes_are_flipped(size: int, offsets: list[int]) -> None:
    assert [offset for offset, _ in places(size)] == offsets
    assert all(offset + length <= size for offset, length in places(size))


def test_some_pages_of_a_large_file_are_flipped_and_flipping_twice_restores_them() -> None:
    assert len(places(100 * PAGE_BYTES)) == 8
    assert {offset // PAGE_BYTES for offset, _ in places(100 * PAGE_BYTES)} == set(range(8))
    content = bytes(range(256))
    assert flipped(flipped(content)) == content
    assert all(one != other for one, other in zip(content, flipped(content), strict=True))


def test_settings_of_backups() -> None:
    assert parse_settings("FOLDER=/srv/uploads\nTARGET=rsync://198.18.1.102/uploads-backup\n") == {
        "FOLDER": "/srv/uploads",
        "TARGET": "rsync://198.18.1.102/uploads-backup",
    }
    assert parse_settings("[uploads-backup]\n# a = b\npath = /srv/backup/uploads\n") == {"path": "/srv/backup/uploads"}
