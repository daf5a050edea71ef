"""Every part of the cluster in the lab: that it does what it is for, and comes back after a power cut."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from harness.records import Power
from harness.wait import NotYet, until
from tests.support.backups import back_up, paused
from tests.support.command import MONKEYWRENCH, healthy_status
from tests.support.faulty import eventually
from tests.support.site import VIPS, WEB, ask, page
from topology.lab import engine, restore
from topology.lab.docker_lab import DockerLab
from topology.parts import ganglia, web_data

RRDS = f"{ganglia.ROOT}/{ganglia.CLUSTER}"
POINT = re.compile(r"^\d+: +[\d.]", re.MULTILINE)
"""A point with a value in what ``rrdtool fetch`` prints; those without have nan."""

ROWS = ["DNS round robin", "Linux Directors", "virtual service", "heartbeat", "ldirectord", "real servers"]
ROWS += ["web data", "variable data", "MySQL", "Ganglia"]


CONNECTIONS = 200
"""In all, of 250 that the server takes: six real servers have 24 processes each with one, and there is some more."""
ROOM_MIB = 80
"""What is left then: the server grew by some 55 MiB in a quarter of an hour of players, and a backup took 38."""
HOLD = f"""
require '/srv/site/lib/site.php';
$to = part('database');
$held = [];
$first = connect($to);
for ($left_s = 120; $left_s > 0 && is_file('/tmp/hold'); $left_s--) {{
    while ((int) $first->query("SHOW STATUS LIKE 'Threads_connected'")->fetch_row()[1] < {CONNECTIONS}) {{
        $held[] = $db = connect($to);
        $db->query('SELECT * FROM players');
    }}
    sleep(1);
    clearstatcache();
}}

function connect(array $to): mysqli
{{
    return new mysqli($to['host'], $to['user'], $to['password'], $to['name'], $to['port']);
}}
"""
"""Those of the real servers' processes count, which an earlier test may have left many of or few."""
FILL = """
mariadb -e 'CREATE DATABASE scratch; CREATE TABLE scratch.fill (seq INT PRIMARY KEY, pad TEXT)' || exit 1
for n in 0 1 2 3 4 5 6; do
    rows="SELECT seq, REPEAT('x', 960) FROM seq_${n}0001_to_${n}9999"
    mariadb scratch -e "SET sql_log_bin=0; INSERT INTO fill $rows" || exit 1
done
"""
"""More than the server's cache holds (innodb_buffer_pool_size), without the binary log."""


def op() -> str:
    return f"test-{uuid.uuid4()}"


def test_status_shows_every_part_healthy(lab: DockerLab) -> None:
    status = healthy_status(lab)
    assert [part["name"] for part in status["parts"]] == ROWS
    assert {part["name"]: part["problems"] for part in status["parts"]} == {name: [] for name in ROWS}


def test_a_score_through_one_vip_is_read_through_the_other_on_another_node(lab: DockerLab) -> None:
    score = op()
    before = ask(lab, VIPS[1], "/score.php?player=7")
    written = ask(lab, VIPS[0], "/score.php", player=7, points=30, op=score)
    assert (written["status"], written["vip"], written["op"]) == (200, VIPS[0], score)
    assert written["total"] == before["total"] + 30

    def from_another_node() -> dict[str, object]:
        read = ask(lab, VIPS[1], f"/ledger.php?id={score}")
        assert (read["status"], read["vip"], read["points"]) == (200, VIPS[1], 30)
        if read["node"] == written["node"]:
            raise NotYet(f"{read['node']} answered, which had written")
        return read

    assert until(from_another_node, 120, "another node to answer", 0.1)["entry"] == written["entry"]


def test_an_upload_written_on_one_node_is_read_on_all(lab: DockerLab) -> None:
    name, text = op(), f"saved game {uuid.uuid4()}"
    written = ask(lab, VIPS[0], f"/upload.php?op={name}", "--data-binary", text)
    assert (written["status"], written["name"], written["bytes"]) == (200, name, len(text))
    assert {node: page(lab, node, f"/upload.php?name={name}") for node in WEB} == dict.fromkeys(WEB, text)
    mounts = {node: lab.node(node).exec("stat", "-f", "-c", "%T", "/srv/uploads").stdout.strip() for node in WEB}
    assert mounts == {**dict.fromkeys(WEB, "nfs"), "web-1": "ext2/ext3"}


def test_an_article_is_changed_through_any_real_server_and_served_by_all(lab: DockerLab) -> None:
    """Twice within a second, and of the same length: rsync, which goes by size and time, must see both."""
    before = ask(lab, VIPS[0], "/article.php?article=5")
    first, second = op(), op()
    for number, changed in enumerate((first, second), 1):
        written = ask(lab, VIPS[number - 1], "/article.php", article=5, text=f"News: {changed}", op=changed)
        assert (written["status"], written["vip"], written["op"]) == (200, VIPS[number - 1], changed)
        assert written["version"] == before["version"] + number
    again = ask(lab, VIPS[0], "/article.php", article=5, text=f"News: {second}", op=second)
    for key in ("version", "page", "sha256"):  # it was sent again, and is the same change
        assert again[key] == written[key]
    assert written["sha256"] == sha256(page(lab, "web-1", f"/{written['page']}").encode()).hexdigest()
    read = ask(lab, VIPS[1], "/article.php?article=5")
    assert (read["by"], read["version"]) == (second, written["version"])

    def everywhere() -> bool:
        behind = [node for node in WEB if f"News: {second}" not in page(lab, node, "/articles/5.html")]
        if behind:
            raise NotYet(f"{', '.join(behind)} serve something else")
        return True

    assert eventually(everywhere, "the article on all nodes")
    healthy_status(lab)


def test_what_cannot_be_published_is_refused_and_says_that_nothing_was_written(lab: DockerLab) -> None:
    for form in ({"article": 13}, {"article": 5, "text": "x" * 2001}, {"article": 0}):
        refused = ask(lab, VIPS[0], "/article.php", **{"text": "news", "op": op(), **form})
        assert (refused["status"], refused["written"]) == (400, "no")
    master = lab.node("web-1")
    master.freeze()
    try:
        refused = until(lambda: _asked_elsewhere(lab), 60, "an answer from another than the master", 0.5)
    finally:
        master.thaw()
    assert (refused["status"], "master" in refused["error"]) == (503, True)
    assert refused["written"] in ("no", "unknown")


def _asked_elsewhere(lab: DockerLab) -> dict[str, object]:
    asked = ask(lab, VIPS[0], "/article.php", article=6, text="while the master stands still", op=op())
    if "error" not in asked:
        raise NotYet(f"{asked}")
    return asked


def served_everywhere(lab: DockerLab, path: str, text: str, nodes: list[str] = WEB) -> bool:
    behind = [node for node in nodes if page(lab, node, path) != text]
    if behind:
        raise NotYet(f"{', '.join(behind)} serve something else")
    return True


def test_a_page_changed_on_the_master_is_served_by_all_and_a_deleted_one_by_none(lab: DockerLab) -> None:
    text = f"news of {uuid.uuid4()}\n"
    lab.node("web-1").put("/srv/site/league/table.html", text.encode())
    assert eventually(lambda: served_everywhere(lab, "/league/table.html", text), "the page on all nodes")
    lab.node("web-1").exec("rm", "-r", "/srv/site/league")

    def gone() -> bool:
        return all(not lab.node(node).exec("test", "-e", "/srv/site/league").ok for node in WEB)

    assert eventually(gone, "the page to be gone from all nodes")


def test_nothing_is_transferred_when_nothing_changed(lab: DockerLab) -> None:
    wanted = lab.topology.web_data
    assert wanted
    over_s = 20
    count = f"cat {web_data.STATE}; sleep {over_s}; echo; cat {web_data.STATE}"
    resyncs = over_s // wanted.resync_s + 1

    def quiet() -> bool:
        """No more than the resyncs that are due."""
        before, after = map(json.loads, lab.node("web-1").exec("sh", "-c", count, timeout_s=60).stdout.splitlines())
        return int(after["transfers"] - before["transfers"]) <= resyncs * (len(WEB) - 1)

    assert any(quiet() for _ in range(3))  # a round that failed, as a node stood still, is made again and counts twice


def test_nobody_sees_half_of_a_page_that_is_written_slowly(lab: DockerLab) -> None:
    """A page written bit by bit, with pauses shorter than the debounce: whoever has it has all of it."""
    slowly = "(for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 0.2; done; echo end) > /srv/site/slow.html"
    whole = "".join(f"line {number}\n" for number in range(1, 11)) + "end\n"
    writer = lab.node("web-1").stream("sh", "-c", slowly)
    try:
        seen: set[str] = set()

        def arrived() -> bool:
            read = lab.node("web-4").exec("cat", "/srv/site/slow.html")
            if read.ok:
                seen.add(read.stdout)
            return whole in seen

        assert until(arrived, 120, "the page on web-4", 0.05)
        assert seen == {whole}
    finally:
        writer.stop()
        lab.node("web-1").exec("rm", "-f", "/srv/site/slow.html")


def test_a_node_that_was_down_catches_up(lab: DockerLab) -> None:
    node, text = lab.node("web-5"), f"while you were away {uuid.uuid4()}\n"
    try:
        node.power_off()
        lab.node("web-1").put("/srv/site/away.html", text.encode())
        others = [name for name in WEB if name != "web-5"]
        assert eventually(lambda: served_everywhere(lab, "/away.html", text, others), "the page on the others")
    finally:
        node.boot()
    try:
        assert eventually(lambda: served_everywhere(lab, "/away.html", text), "web-5 to catch up", 300)
    finally:
        lab.node("web-1").exec("rm", "-f", "/srv/site/away.html")


def test_a_fresh_backup_restores_with_all_that_was_acknowledged_before(lab: DockerLab) -> None:
    ops = [op() for _ in range(5)]
    for number, score in enumerate(ops):
        assert ask(lab, VIPS[number % 2], "/score.php", player=number + 1, points=5, op=score)["status"] == 200
    proven = subprocess.run(
        [*MONKEYWRENCH, "prove-backup", "--fresh", "--json", "--lab", lab.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert proven.returncode == 0, proven.stdout + proven.stderr
    verdict = json.loads(proven.stdout)
    assert verdict["outcome"] == "valid"
    assert verdict["numbers"]["restored"] >= len(ops)


def test_a_backup_with_a_broken_file_does_not_pass(lab: DockerLab) -> None:
    """A planted defect: what is kept as a backup is damaged, as a copied data folder would be."""
    keeper = lab.node("web-3")
    with paused(lab, "db", "database-backup"):
        assert back_up(lab, "db", "database") == ""
        folder = keeper.exec("readlink", "-f", "/srv/backup/database/current").stdout.strip()
        file, kept = f"{folder}/ibdata1", "/srv/ibdata1"
        try:
            torn = f"cp -a {file} {kept} && dd if=/dev/urandom of={file} bs=1M count=8 conv=notrunc"
            assert keeper.exec("sh", "-c", torn, timeout_s=120).ok
            verdict = restore.prove(engine.connect(), lab)
            assert verdict.outcome == "invalid"
            assert "does not restore" in verdict.summary
        finally:
            keeper.exec("mv", kept, file)


def test_the_database_has_room_for_a_full_cache_all_connections_and_a_backup(lab: DockerLab) -> None:
    """A node with less killed its server in a load of a quarter of an hour, when a backup came."""
    db, web = lab.node("db"), lab.node("web-1")
    server = db.exec("pidof", "mariadbd").stdout
    connected = "mariadb -NBe \"SHOW STATUS LIKE 'Threads_connected'\" | cut -f 2"
    with paused(lab, "db", "database-backup"), ThreadPoolExecutor(1) as pool:
        assert web.exec("touch", "/tmp/hold").ok
        holding = pool.submit(web.exec, "php", "-r", HOLD, timeout_s=180)
        try:
            eventually(lambda: int(db.exec("sh", "-c", connected).stdout) >= CONNECTIONS, "all connections")
            filled = db.exec("sh", "-c", FILL, timeout_s=120)
            assert filled.ok, filled.stderr
            assert back_up(lab, "db", "database") == ""
            available = db.exec("awk", "/MemAvailable/ { print int($2 / 1024) }", "/proc/meminfo").stdout
        finally:
            web.exec("rm", "-f", "/tmp/hold")
            db.exec("mariadb", "-e", "DROP DATABASE IF EXISTS scratch", timeout_s=60)
            held = holding.result()
    assert held.ok, held.stderr
    assert db.exec("pidof", "mariadbd").stdout == server
    assert int(available) >= ROOM_MIB


def test_gmetad_names_six_hosts_and_keeps_a_history(lab: DockerLab) -> None:
    def all_up() -> bool:
        heard = lab.node("lb-1").exec("/usr/lib/monkeywrench/ganglia-hosts", str(ganglia.GMETAD_PORT))
        hosts = ganglia.parse_hosts(heard.stdout)
        if sorted(host.name for host in hosts if host.up) != WEB or len(hosts) != len(WEB):
            raise NotYet(str(hosts))
        return True

    assert eventually(all_up, "gmetad to have heard of all hosts")
    for node in WEB:
        fetch = f"rrdtool fetch {RRDS}/{node}/load_one.rrd AVERAGE --start -120s"

        def covered(fetch: str = fetch) -> bool:
            return len(POINT.findall(lab.node("lb-1").exec("sh", "-c", fetch).stdout)) >= 2

        assert eventually(covered, f"a history of {node}", 180)


def test_a_history_that_a_power_cut_left_cut_short_is_made_anew(lab: DockerLab) -> None:
    director, broken = lab.node("lb-1"), [f"{RRDS}/web-{n}/load_one.rrd" for n in (1, 2, 3)]
    whole = director.exec("stat", "-c", "%s", broken[0]).stdout
    director.exec("sv", "stop", "/run/service/gmetad")
    for path, size in zip(broken, (0, 100, 4096), strict=True):
        assert director.exec("truncate", "-s", str(size), path).ok
    director.exec("sv", "start", "/run/service/gmetad")

    def anew() -> bool:
        return director.exec("stat", "-c", "%s", *broken).stdout == 3 * whole

    assert eventually(anew, "gmetad to keep a history again", 180)
    lab.wait_healthy(180)


def test_the_database_keeps_every_acknowledged_score_over_a_power_cut_and_comes_back_alone(lab: DockerLab) -> None:
    acknowledged = []
    for _ in range(20):
        score = op()
        if ask(lab, VIPS[0], "/score.php", player=9, points=1, op=score)["status"] == 200:
            acknowledged.append(score)
    assert len(acknowledged) == 20
    db = lab.node("db")
    db.power_off()
    assert ask(lab, VIPS[0], "/score.php", player=9, points=1, op=op())["written"] == "no"
    assert "db is off" in lab.status().problems
    db.boot()
    lab.wait_healthy(180)
    kept = restore.ledger(db.exec("mariadb", "-NBe", restore.LEDGER, timeout_s=60).stdout)
    assert [score for score in acknowledged if score not in kept] == []


def test_uploads_survive_a_power_cut_of_their_server_and_its_clients_go_on_by_themselves(lab: DockerLab) -> None:
    name, text = op(), "precious"
    assert ask(lab, VIPS[0], f"/upload.php?op={name}", "--data-binary", text)["status"] == 200
    booted = {node: lab.node(node).exec("cat", "/proc/uptime").stdout for node in WEB[1:]}
    master = lab.node("web-1")
    master.power_off()

    def noticed() -> bool:
        problems = lab.status().problems
        assert "web-1 is off" in problems
        return any("/srv/uploads on " in line and "does not answer" in line for line in problems)

    assert eventually(noticed, "its clients to notice")
    master.boot()
    lab.wait_healthy(300)
    assert eventually(lambda: served_everywhere(lab, f"/upload.php?name={name}", text), "the upload on all nodes")
    for node in WEB[1:]:
        assert float(lab.node(node).exec("cat", "/proc/uptime").stdout.split()[0]) > float(booted[node].split()[0])


def test_apache_waits_for_its_mounts(lab: DockerLab) -> None:
    master, late = lab.node("web-1"), lab.node("web-6")
    master.power_off()
    try:
        late.power_off()
        late.boot()
        eventually(lambda: late.exec("sv", "check", "/run/service/uploads-mount").ok, "the mount to be tried")
        assert not late.exec("pgrep", "apache2").ok
        assert late.power() is Power.RUNNING
    finally:
        master.boot()
    lab.wait_healthy(300)
    assert late.exec("pgrep", "apache2").ok


def test_a_login_holds_on_its_node(lab: DockerLab) -> None:
    """PHP sessions are files on the node that made them: on one connection, so on one node, the login holds."""
    script = (
        "curl -s --max-time 60 -c /tmp/jar -b /tmp/jar -d 'player=12&op=test-login' http://{vip}/login.php"
        " --next -s --max-time 60 -c /tmp/jar -b /tmp/jar http://{vip}/session.php"
    )
    try:
        both = lab.node("client").exec("sh", "-c", script.format(vip=VIPS[0]), timeout_s=150).stdout
        decoder, answers = json.JSONDecoder(), []
        while both.strip():
            answer, end = decoder.raw_decode(both.strip())
            answers.append(answer)
            both = both.strip()[end:]
        login, session = answers
        assert login["player"] == 12
        assert session["node"] == login["node"]
        assert (session["player"], session["pages"]) == (12, 1)
    finally:
        lab.node("client").exec("rm", "-f", "/tmp/jar")
