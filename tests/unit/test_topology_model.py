import re
from pathlib import Path

import pytest

from topology import model
from topology.lab.virtual.cost import options
from topology.load import load, parse, shipped
from topology.model import CostTable, TopologyError
from topology.parts import parts_of

TEXT = shipped()["ultramonkey"].read_text()
DB = '[[nodes]]\nname = "db"\nrole = "db"\nmemory_mib = 384\naddresses.lan = "198.18.1.31"\n'


def refused(before: str, after: str) -> str:
    assert before in TEXT
    with pytest.raises(TopologyError) as caught:
        parse(TEXT.replace(before, after, 1), "my.toml")
    return str(caught.value)


def test_the_shipped_topology_is_the_classic_cluster() -> None:
    topology = load("ultramonkey")
    names = [machine.name for machine in topology.machines]
    assert names == ["client", "resolver", "lb-1", "lb-2", *(f"web-{n}" for n in range(1, 7)), "db"]
    web_6 = topology.machine("web-6")
    assert [str(address) for address in web_6.addresses["lan"]] == ["198.18.1.106", "198.18.1.206"]


@pytest.mark.parametrize("count", [2, 12])
def test_counts_are_data(count: int) -> None:
    text = TEXT.replace("count = 6", f"count = {count}").replace('backup_on = "web-3"', 'backup_on = "web-2"')
    topology = parse(text, "my.toml")
    assert len(topology.of_role("web")) == count


def test_a_director_has_its_interfaces_in_the_order_of_the_segments() -> None:
    topology = load("ultramonkey")
    director = topology.of_role("director")[0]
    assert topology.interfaces(director) == [("eth0", "internet"), ("eth1", "lan"), ("eth2", "heartbeat")]
    web = topology.of_role("web")[0]
    assert topology.interfaces(web) == [("eth0", "lan")]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("ttl_s = 5", "tll_s = 5", ["my.toml: unknown key 'tll_s'; did you mean 'ttl_s'?"]),
        ("memory_mib = 96", "memory = 96", ["nodes[1]: unknown key 'memory'", "memory_mib"]),
        ("keepalive_ms = 500", "keepalive = 500", ["timings: unknown key 'keepalive'; did you mean 'keepalive_ms'?"]),
        ('home = "lb-1"', 'home = "lb-9"', ["vips[0].home", "'lb-9' is not a director", "lb-1, lb-2"]),
        ('home = "lb-1"\n', "", ["vips[0]: missing key 'home'"]),
        ("198.18.2.0/24", "10.0.0.0/24", ["segments.heartbeat", "10.0.0.0/24", "198.18.0.0/15", "203.0.113.0/24"]),
        ("203.0.113.53", "203.0.113.10", ["203.0.113.10 is already used by nodes client"]),
        ("203.0.113.53", "198.18.1.53", ["nodes resolver", "not a host address of segment internet"]),
        ("deadtime_ms = 3000", "deadtime_ms = 1000", ["timings", "more than twice keepalive_ms"]),
        ("initdead_ms = 10000", "initdead_ms = 2000", ["initdead_ms must be at least deadtime_ms"]),
        ("memory_mib = 512", 'kernel = "windows"', ["nodes[0].kernel", "'uml' or 'host'", "windows"]),
        ("ttl_s = 5", 'clock = "stopped"', ["clock", "'real' or 'virtual'", "stopped"]),
        (
            "ttl_s = 5",
            "cost = { syscall_ns = 0 }",
            ["cost: syscall_ns must be at least 1 (got 0)", "spins on a system call would never end"],
        ),
        ("ttl_s = 5", 'cost = "slow"', ["cost.preset", "'fast', 'typical' or 'struggling'", "slow"]),
        ("ttl_s = 5", "cost = { fork_ms = 3 }", ["cost: unknown key 'fork_ms'", "fork_us"]),
        ("ttl_s = 5", "cost = { fork_us = -1 }", ["cost.fork_us: must be at least 0 (got -1)"]),
        ("ttl_s = 5", "cost = { jitter = 11 }", ["cost.jitter: must be at most 10 (got 11)"]),
        ("ttl_s = 5", "cost = { hold_up_ms = [80, 1] }", ["cost: hold_up_ms is [shortest, longest]", "[80, 1]"]),
        (
            "ttl_s = 5",
            "cost = { hold_up_one_in = 15, jitter = 2 }",
            ["cost: hold_up_one_in must be 0 (no hold-ups) or at least 20 (got 15)"],
        ),
        ('role = "web"', 'role = "wbe"', ["nodes[3].role", "'web'"]),
        ('name = "web"', 'name = "webservers"', ["'webservers-1' is too long"]),
        ("count = 2", "count = 3", ["3 with role director", "a lab has exactly 2"]),
        ('"198.18.1.101", "198.18.1.201"', '"198.18.1.101"', ["nodes web-1", "one for each VIP (2)"]),
        ("[segments]", "[segments", ["my.toml: invalid TOML"]),
        ('forwarding = "masq"', 'forwarding = "nat"', ["service.forwarding", "'masq', 'gate' or 'ipip'"]),
        ('scheduler = "wlc"', 'scheduler = "fair"', ["service.scheduler", "'wlc'"]),
        ('gateway = "198.18.1.1"\n', "", ["vips[0].gateway: required with forwarding masq", "gate or ipip"]),
        ('engine = "mariadb"', 'engine = "mysql"', ["database", "no package in Debian bookworm"]),
        (
            'backup_on = "web-3"',
            'backup_on = "web-9"',
            ["database.backup_on: 'web-9' is not a node with role web", "web-1, web-2"],
        ),
        ('backup_on = "web-2"', 'backup_on = "web-1"', ["variable_data.backup_on", "must not be the master"]),
        (
            'gmetad_on = "lb-1"',
            'gmetad_on = "web-1"',
            ["monitoring.gmetad_on", "not a node with role director", "lb-1, lb-2"],
        ),
        ("[database]", "[databse]", ["my.toml: unknown key 'databse'; did you mean 'database'?"]),
        ("resync_s = 60", "resync = 60", ["web_data: unknown key 'resync'; did you mean 'resync_s'?"]),
        ('role = "db"', 'role = "db"\ncount = 2', ["2 with role db; a lab has exactly 1"]),
        ('role = "db"', 'role = "db"\nkernel = "host"', ["nodes db", "its own disk", 'kernel = "uml"']),
        ('role = "web"', 'role = "web"\nkernel = "host"', ["nodes web-1", "mounts NFS"]),
        ('role = "director"', 'role = "director"\nkernel = "host"', ["nodes lb-1", "its own disk"]),
    ],
)
def test_an_error_names_the_place_what_is_wrong_and_what_is_accepted(before: str, after: str, words: list[str]) -> None:
    message = refused(before, after)
    for word in words:
        assert word in message
    assert "Traceback" not in message


def test_a_node_on_the_hosts_kernel_cannot_have_virtual_time() -> None:
    on_host = TEXT.replace("memory_mib = 512", 'kernel = "host"')
    assert parse(on_host, "my.toml", "real")
    with pytest.raises(TopologyError, match='nodes client: kernel = "host" is not possible with clock = "virtual"'):
        parse(on_host, "my.toml", "virtual")


def test_a_cost_is_a_preset_and_what_differs_from_it() -> None:
    assert parse(TEXT, "my.toml").cost == CostTable()
    assert parse(f'cost = "struggling"\n{TEXT}', "my.toml").cost == CostTable(preset="struggling")
    own = parse(f'cost = {{ preset = "fast", fork_us = 700, jitter = 0 }}\n{TEXT}', "my.toml").cost
    assert options(own) == ["tt-cost=1000,700000,500000,5000,0"]
    assert options(CostTable(hold_up_one_in=60, hold_up_ms=(1, 200)))[1:] == ["tt-stall=60,1000,200000"]
    assert options(CostTable(preset="struggling", jitter=0)) == ["tt-cost=2000,5000000,8000000,20000,0"]
    assert parse(f"cost = {{ fork_us = 700 }}\n{TEXT}", "my.toml", "virtual", "fast").cost == CostTable(preset="fast")


def test_the_preset_for_a_lab_without_a_table_has_the_costs_that_budgets_count_with() -> None:
    assert options(CostTable()) == ["tt-cost=2000,500000,1000000,20000,25"]


def test_with_direct_routing_real_servers_have_a_cable_of_their_own_to_the_internet() -> None:
    topology = parse(TEXT.replace('forwarding = "masq"', 'forwarding = "gate"'), "my.toml")
    web = topology.machine("web-2")
    assert [str(address) for address in web.addresses["internet"]] == ["203.0.113.122"]
    assert topology.interfaces(web) == [("eth0", "internet"), ("eth1", "lan")]
    assert "internet" not in load("ultramonkey").machine("web-2").addresses
    without = re.sub(r"(?m)^uplink.*\n", "", TEXT)
    with pytest.raises(TopologyError, match="nodes web-1: forwarding ipip needs an uplink address"):
        parse(without.replace('forwarding = "masq"', 'forwarding = "ipip"'), "my.toml")
    assert parse(without, "my.toml")


def test_each_part_can_be_left_out() -> None:
    bare = TEXT.partition("# Web data: changes")[0].replace(DB, "")
    topology = parse(bare, "my.toml")
    names = [part.name for part in parts_of(topology)]
    assert "real servers" in names
    assert not {"web data", "variable data", "MySQL", "Ganglia"} & set(names)
    assert parse(bare.replace('kernel = "uml"', 'kernel = "host"'), "my.toml")


def test_an_overlay_is_found_beside_the_topology_and_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "ha.cf").write_text("deadtime 3\n")
    mine = tmp_path / "mine.toml"
    mine.write_text(f'{TEXT}\n[[overlays]]\nnodes = "director"\npath = "/etc/ha.d/ha.cf"\nsource = "ha.cf"\n')
    first = load(str(mine))
    assert first.overlays[0].source == tmp_path / "ha.cf"
    assert load(str(mine)) == first
    (tmp_path / "ha.cf").write_text("deadtime 4\n")
    assert load(str(mine)) != first
    mine.write_text(mine.read_text().replace('source = "ha.cf"', 'source = "haha.cf"'))
    with pytest.raises(TopologyError, match=r"source 'haha\.cf' does not exist"):
        load(str(mine))
    mine.write_text(
        mine.read_text().replace("haha.cf", "ha.cf").replace('nodes = "dir', 'nodes = ["lb-1", "wbe"] # "dir')
    )
    with pytest.raises(TopologyError, match=r"overlays\[0\]\.nodes: 'wbe' is neither a role nor a node"):
        load(str(mine))


def test_an_unknown_topology_names_the_shipped_ones() -> None:
    with pytest.raises(TopologyError) as caught:
        load("no-such")
    assert "ultramonkey" in caught.value.next_step


def test_every_cable_fits_an_interface_name() -> None:
    longest = "n" * model.NODE_NAME_MAX + ".eth0"
    assert len(longest) <= 15


def test_the_small_topology_of_the_lab_tests_has_no_data(small_topology: Path) -> None:
    topology = load(str(small_topology))
    assert len(topology.of_role("web")) == 2
    assert (topology.web_data, topology.variable_data, topology.database, topology.monitoring) == (None,) * 4
