from configparser import ConfigParser

import pytest

from topology.files import files_of, secrets
from topology.load import load, parse, shipped
from topology.model import Topology


def content(topology: Topology, node: str, path: str) -> str:
    machine = next(machine for machine in topology.machines if machine.name == node)
    found = next(file for file in files_of(topology, machine, "lab", "secret") if file.path == path)
    return found.data.decode()


def lines(topology: Topology, node: str, path: str) -> list[str]:
    return [line for line in content(topology, node, path).splitlines() if line and not line.startswith("#")]


def test_both_directors_have_the_same_heartbeat_files() -> None:
    topology = load("ultramonkey")
    for path in ("/etc/ha.d/ha.cf", "/etc/ha.d/haresources", "/etc/ha.d/authkeys", "/etc/ha.d/ldirectord.cf"):
        assert content(topology, "lb-1", path) == content(topology, "lb-2", path)


def test_heartbeat_speaks_over_both_segments_and_the_port_stands_before_the_media() -> None:
    ha_cf = lines(load("ultramonkey"), "lb-1", "/etc/ha.d/ha.cf")
    assert [line for line in ha_cf if line.startswith("ucast")] == [
        "ucast eth2 198.18.2.11",
        "ucast eth2 198.18.2.12",
        "ucast eth1 198.18.1.11",
        "ucast eth1 198.18.1.12",
    ]
    assert ha_cf.index("udpport 694") < ha_cf.index("ucast eth2 198.18.2.11")
    assert "deadtime 3000ms" in ha_cf
    assert "node lb-1 lb-2" in ha_cf


def test_the_inside_gateway_starts_before_the_vip() -> None:
    assert lines(load("ultramonkey"), "lb-1", "/etc/ha.d/haresources") == [
        "lb-1 IPaddr2::198.18.1.1/24/eth1 IPaddr2::203.0.113.101/24/eth0",
        "lb-2 IPaddr2::198.18.1.2/24/eth1 IPaddr2::203.0.113.102/24/eth0",
    ]


def test_authkeys_are_for_heartbeat_alone() -> None:
    topology = load("ultramonkey")
    files = files_of(topology, topology.of_role("director")[0], "lab", "secret")
    keys = next(file for file in files if file.path == "/etc/ha.d/authkeys")
    assert keys.mode == 0o600  # heartbeat refuses to start otherwise
    key = secrets("secret").heartbeat.encode()
    assert key in keys.data
    assert all(key not in file.data for file in files if file != keys)


def test_each_virtual_service_has_every_real_server_by_its_own_address_for_that_vip() -> None:
    text = content(load("ultramonkey"), "lb-1", "/etc/ha.d/ldirectord.cf")
    first, second = text.split("virtual=")[1:]
    assert first.startswith("203.0.113.101:80")
    assert [f"real=198.18.1.10{n}:80 masq" in first for n in range(1, 7)] == [True] * 6
    assert [f"real=198.18.1.20{n}:80 masq" in second for n in range(1, 7)] == [True] * 6
    assert "quiescent=yes" in text


def test_connection_sync_is_crossed() -> None:
    topology = load("ultramonkey")
    ones, twos = (content(topology, node, "/etc/monkeywrench/ipvs-sync") for node in ("lb-1", "lb-2"))
    assert "master --mcast-interface eth2 --syncid 1" in ones
    assert "backup --mcast-interface eth2 --syncid 2" in ones
    assert "master --mcast-interface eth2 --syncid 2" in twos
    assert "backup --mcast-interface eth2 --syncid 1" in twos


def test_replies_of_a_real_server_leave_through_the_gateway_of_the_vip_they_came_by() -> None:
    batch = content(load("ultramonkey"), "web-2", "/etc/monkeywrench/network.batch")
    assert "rule add pref 101 from 198.18.1.102 lookup 1" in batch
    assert "route replace default via 198.18.1.1 dev eth0 table 1 onlink" in batch
    assert "rule add pref 102 from 198.18.1.202 lookup 2" in batch
    assert "rule add pref 100 to 198.18.1.0/24 lookup main" in batch


def test_a_node_on_the_hosts_kernel_has_no_vector_nic_to_rename() -> None:
    topology = load("ultramonkey")
    assert "vec0" not in content(topology, "client", "/etc/monkeywrench/network.batch")
    assert "link set vec0 name eth0" in content(topology, "web-1", "/etc/monkeywrench/network.batch")


def test_mac_addresses_differ_between_nodes_interfaces_and_labs_and_stay_the_same() -> None:
    topology = load("ultramonkey")
    macs = {
        machine.mac(lab, interface)
        for lab in ("one", "two")
        for machine in topology.machines
        for interface, _ in topology.interfaces(machine)
    }
    assert len(macs) == 2 * (2 + 2 * 3 + 6 + 1)
    assert topology.machines[0].mac("one", "eth0") == topology.machines[0].mac("one", "eth0")
    assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in macs)  # locally administered, unicast


def test_twelve_real_servers_are_all_served() -> None:
    text = shipped()["ultramonkey"].read_text().replace("count = 6", "count = 12")
    topology = parse(text, "my.toml")
    assert content(topology, "lb-2", "/etc/ha.d/ldirectord.cf").count("real=") == 24


@pytest.mark.parametrize(("keeper", "name"), [("web-2", "uploads-backup"), ("web-3", "database-backup")])
def test_who_reads_a_backup_is_not_taken_for_one_that_brought_one(keeper: str, name: str) -> None:
    """rsyncd runs its command after each transfer, a read among them, and perhaps in the middle of the next one."""
    modules = ConfigParser()
    modules.read_string(content(load("ultramonkey"), keeper, f"/etc/rsyncd.d/{name}.conf"))
    assert modules.sections() == [name, f"{name}-kept"]
    taken, read = (dict(modules[each]) for each in modules.sections())
    assert taken.pop("post-xfer exec").endswith("/keep-backup")
    assert (taken.pop("read only"), read.pop("read only")) == ("no", "yes")
    assert read == taken
