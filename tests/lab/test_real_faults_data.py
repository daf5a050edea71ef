"""Faults of the data on real machines: seen by those who use it, and undone to the last byte."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable

import pytest

from faults import FAULTS
from faults.data.database import READ_ONLY, TOO_MANY_CONNECTIONS, WRITE
from faults.data.database import ask as query
from harness.records import LabError
from harness.wait import NotYet
from tests.support.backups import back_up, paused
from tests.support.faulty import eventually, injected
from tests.support.site import VIPS, ask, page
from topology.lab import engine, restore
from topology.lab.docker_lab import DockerLab

pytestmark = pytest.mark.usefixtures("audited")


def health(lab: DockerLab) -> int:
    """The status with which the site, asked by a client through a VIP, answers after its database."""
    return int(ask(lab, VIPS[0], "/health.php?of=database")["status"])


def unhealthy(lab: DockerLab) -> bool:
    return health(lab) == 503


def slow(lab: DockerLab) -> bool:
    return max(query(lab.node("web-3"), "SELECT 1").ms for _ in range(3)) >= 300


def no_connection(lab: DockerLab) -> bool:
    return query(lab.node("web-3"), "SELECT 1").code == TOO_MANY_CONNECTIONS


def writes_refused(lab: DockerLab) -> bool:
    score = ask(lab, VIPS[0], "/score.php", player=3, points=1, op=f"test-{uuid.uuid4()}")
    return score["status"] != 200 and query(lab.node("web-3"), "SELECT 1").code == 0


def write(lab: DockerLab) -> int:
    """The error's code, 0 for none."""
    return query(lab.node("web-3"), WRITE).code


def rows_locked(lab: DockerLab) -> bool:
    count = "SELECT SUM(trx_rows_locked) FROM information_schema.INNODB_TRX"
    return int(lab.node("db").exec("mariadb", "-NBe", count, timeout_s=30).stdout) >= 200


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("data.database-killed", unhealthy),
        ("data.database-frozen", unhealthy),
        ("data.database-power-cut", unhealthy),
        ("data.database-slow", slow),
        ("data.database-read-only", writes_refused),
        ("data.database-out-of-connections", no_connection),
        ("data.database-locked", rows_locked),
    ],
)
def test_users_of_the_site_notice_its_database(lab: DockerLab, fault: str, seen: Callable[[DockerLab], bool]) -> None:
    with injected(lab, fault):
        assert eventually(lambda: seen(lab), "its users to notice")
    assert eventually(lambda: health(lab) == 200, "the site to be well")
    written = ask(lab, VIPS[0], "/score.php", player=3, points=1, op=f"test-{uuid.uuid4()}")
    assert written["status"] == 200


def test_the_limit_of_connections_is_what_it_was(lab: DockerLab) -> None:
    limit = ("mariadb", "-NBe", "SELECT @@GLOBAL.max_connections")
    before = lab.node("db").exec(*limit, timeout_s=30).stdout

    def lower() -> bool:
        """An administrator still gets in, if not always at the first attempt."""
        return 0 < int(lab.node("db").exec(*limit, timeout_s=30).stdout or 0) < int(before)

    with injected(lab, "data.database-out-of-connections"):
        assert eventually(lower, "an administrator to get in")
    assert lab.node("db").exec(*limit, timeout_s=30).stdout == before


def test_two_faults_of_the_database_compose_and_two_of_its_process_do_not(lab: DockerLab) -> None:
    with injected(lab, "data.database-read-only"):
        with FAULTS["data.database-slow"](share=0.5).inject(lab):
            with (
                pytest.raises(LabError, match=r"service mariadb is taken by data\.database-slow"),
                FAULTS["data.database-frozen"]().inject(lab),
            ):
                pytest.fail("it was taken for injected")
            assert eventually(lambda: write(lab) == READ_ONLY, "a write to be refused")
        assert eventually(lambda: write(lab) == READ_ONLY, "a write to be refused")
    assert eventually(lambda: write(lab) == 0, "a write to succeed")


# --- variable data


def look(lab: DockerLab, node: str) -> str:
    """What another client of the NFS server sees."""
    said = lab.node(node).exec("timeout", "-s", "KILL", "3", "ls", "/srv/uploads")
    return said.stderr if said.stderr.strip() else str(said.exit_code)


def mount_anew(lab: DockerLab, node: str) -> bool:
    """Whether a client that comes only now can mount."""
    options = "vers=3,proto=tcp,soft,nolock,retry=0,mountport=20048"
    script = (
        f"mkdir -p /tmp/anew && timeout 20 mount.nfs 198.18.1.101:/srv/uploads /tmp/anew -o {options}; e=$?;"
        " umount /tmp/anew; rmdir /tmp/anew; exit $e"
    )
    return lab.node(node).exec("sh", "-c", script, timeout_s=40).ok


def test_clients_of_a_stalled_nfs_server_wait_and_lose_nothing(lab: DockerLab) -> None:
    with injected(lab, "data.nfs-stalled"):
        late = lab.node("web-3").stream("sh", "-c", "echo late > /srv/uploads/.late; cat /srv/uploads/.late")
        assert look(lab, "web-2") in {"-9", "137"}
        assert not lab.node("web-1").exec("test", "-e", "/srv/uploads/.late").ok
    assert [line.text.strip() for line in late] == ["late"]
    assert lab.node("web-1").exec("rm", "/srv/uploads/.late").ok


def test_clients_of_a_restarted_nfs_server_go_on(lab: DockerLab) -> None:
    with injected(lab, "data.nfs-restarted") as proof:
        assert "8 new nfsd threads" in proof.seen
        assert eventually(lambda: look(lab, "web-3") == "0", "a client to go on")


def test_a_withdrawn_export_is_refused_to_all(lab: DockerLab) -> None:
    with injected(lab, "data.nfs-export-withdrawn"):
        assert eventually(lambda: re.search("denied|Stale", look(lab, "web-3")), "a client to be refused")
        assert not mount_anew(lab, "web-3")
    assert eventually(lambda: look(lab, "web-3") == "0", "a client to go on")
    assert eventually(lambda: mount_anew(lab, "web-3"), "a client to mount")


def test_another_file_system_under_the_same_name_is_stale_to_those_who_knew_the_old_one(lab: DockerLab) -> None:
    with injected(lab, "data.nfs-other-fsid", fsid=99):
        assert eventually(lambda: "Stale" in look(lab, "web-3"), "an old client to be refused")
        assert eventually(
            lambda: mount_anew(lab, "web-4"), "a client to mount"
        )  # a client that did not know the old one
        with (
            pytest.raises(LabError, match=r"exports is taken by data\.nfs-other-fsid"),
            FAULTS["data.nfs-export-withdrawn"]().inject(lab),
        ):
            pytest.fail("it was taken for injected")
    assert eventually(lambda: look(lab, "web-3") == "0", "a client to go on")


# --- web data


def test_pages_of_an_interrupted_replication_arrive_nowhere_by_half_and_everywhere_in_the_end(lab: DockerLab) -> None:
    master, text = lab.node("web-1"), f"news of {uuid.uuid4()}\n"
    everyone = [node.name for node in lab.nodes("web")]

    def serving() -> list[str]:
        return [node for node in everyone if page(lab, node, "/cut.html") == text]

    try:
        with injected(lab, "data.replication-interrupted", after_kib=256):
            rounds = account(lab)
            master.put("/srv/site/cut.html", text.encode())

            def tried() -> bool:
                if account(lab) < rounds + 2:
                    raise NotYet("no round has ended since")
                return True

            eventually(tried, "replication to try again", 180)
            assert eventually(serving, "the master to serve it") == ["web-1"]
            master.exec("touch", "/srv/site")
        assert eventually(lambda: serving() == everyone, "everybody to serve it")
    finally:
        master.exec("rm", "-f", "/srv/site/cut.html")
    lab.wait_healthy(180)


def account(lab: DockerLab) -> int:
    return int(json.loads(lab.node("web-1").exec("cat", "/run/monkeywrench/replicate.json").stdout)["rounds"])


def test_an_empty_source_takes_its_own_node_out_of_service_and_nobody_elses_pages(lab: DockerLab) -> None:
    kept = lab.node("web-1").exec("sh", "-c", FINGERPRINT, timeout_s=60).stdout
    with injected(lab, "data.replication-source-empty") as proof:
        assert "not replicated" in proof.seen
        assert "OK" not in page(lab, "web-1", "/alive")
        assert eventually(lambda: page(lab, "web-2", "/alive") == "OK\n", "another one to be in service")

        def out() -> bool:
            table = lab.node("lb-1").exec("ipvsadm", "-Ln").stdout
            weight = next(line.split()[3] for line in table.splitlines() if "198.18.1.101:80" in line)
            if weight != "0":
                raise NotYet(f"web-1 has weight {weight}")
            return True

        assert eventually(out, "web-1 to get no requests")
    assert lab.node("web-1").exec("sh", "-c", FINGERPRINT, timeout_s=60).stdout == kept


# A folder's time can be put back to the second only: hostfs sets no more of it. Files keep all of theirs.
FINGERPRINT = (
    "cd /srv/site && find . -type d -printf '%P %s %Ts %m\\n' | sort; "
    "find . -type f -printf '%P %s %T@ %m\\n' | sort; find . -type f | sort | xargs md5sum"
)


# --- backups


def test_two_backups_of_the_uploads_take_turns(lab: DockerLab) -> None:
    """Together in the keeper's folder, the later one writes into what the earlier one made the current backup."""
    script = "$0 once & first=$!; sleep $1; $0 once || exit; wait $first"
    with paused(lab, "web-1", "uploads-backup"):
        for after_s in ("0.1", "0.2", "0.4"):
            both = lab.node("web-1").exec(
                "sh", "-c", script, "/usr/lib/monkeywrench/uploads-backup", after_s, timeout_s=300
            )
            assert both.ok, (after_s, both.stdout)


def test_a_backup_does_not_fit_on_a_full_disk(lab: DockerLab) -> None:
    with paused(lab, "web-1", "uploads-backup"):
        assert back_up(lab, "web-1", "uploads") == ""
        before = lab.node("web-2").exec("ls", "/srv/backup/uploads").stdout
        with injected(lab, "data.backup-target-full", of="uploads"):
            assert "No space left" in back_up(lab, "web-1", "uploads")
            assert "current" in lab.node("web-2").exec("ls", "/srv/backup/uploads").stdout
        assert lab.node("web-2").exec("ls", "/srv/backup/uploads").stdout == before
        assert back_up(lab, "web-1", "uploads") == ""


def test_the_disk_of_the_databases_backup_can_be_full_too(lab: DockerLab) -> None:
    with injected(lab, "data.backup-target-full"):
        assert not lab.node("web-3").exec("sh", "-c", "echo more > /srv/backup/database/more").ok
    assert not lab.node("web-3").exec("test", "-e", "/srv/backup/database/more").ok


def test_a_rotten_backup_of_the_database_is_refused_when_it_is_restored(lab: DockerLab) -> None:
    with paused(lab, "db", "database-backup"):
        assert back_up(lab, "db", "database") == ""
        client = engine.connect()
        with injected(lab, "data.backup-corrupted") as proof:
            folder = str(proof.detail["file"]).rpartition("/site/")[0]
            assert lab.node("web-3").exec("readlink", "-f", "/srv/backup/database/current").stdout.strip() == folder
            assert restore.prove(client, lab).outcome == "invalid"
        assert restore.prove(client, lab).outcome != "invalid"


def test_rot_in_a_backup_of_the_uploads_is_inherited_until_it_is_undone(lab: DockerLab) -> None:
    name, text = f"test-{uuid.uuid4()}", f"saved game {uuid.uuid4()}"
    assert ask(lab, VIPS[0], f"/upload.php?op={name}", "--data-binary", text)["status"] == 200
    keeper = lab.node("web-2")

    def kept() -> set[str]:
        """All versions of all files in the backups, by name and checksum."""
        found = keeper.exec("sh", "-c", "cd /srv/backup/uploads && md5sum [0-9]*/* | sed 's,  [0-9]*/,  ,'").stdout
        return {line for line in found.splitlines() if "backup.json" not in line}

    with paused(lab, "web-1", "uploads-backup"):
        assert back_up(lab, "web-1", "uploads") == ""
        before = kept()
        with injected(lab, "data.backup-corrupted", of="uploads"):
            assert back_up(lab, "web-1", "uploads") == ""
            rotten = kept() - before
            assert len(rotten) == 1
        assert kept() == before
