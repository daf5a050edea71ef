import pytest

from topology import model
from topology.model import TopologyError, load, parse, shipped

TEXT = shipped()["ultramonkey"].read_text()


def refused(before: str, after: str) -> str:
    assert before in TEXT
    with pytest.raises(TopologyError) as caught:
        parse(TEXT.replace(before, after, 1), "my.toml")
    return str(caught.value)


def test_the_shipped_topology_is_the_cluster_of_the_mission() -> None:
    topology = load("ultramonkey")
    names = [machine.name for machine in topology.machines]
    assert names == ["client", "resolver", "lb-1", "lb-2", *(f"web-{n}" for n in range(1, 7))]
    web_6 = topology.machines[-1]
    assert [str(address) for address in web_6.addresses["lan"]] == ["198.18.1.106", "198.18.1.206"]


@pytest.mark.parametrize("count", [2, 12])
def test_counts_are_data(count: int) -> None:
    topology = parse(TEXT.replace("count = 6", f"count = {count}"), "my.toml")
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
        ("ttl_s = 5", "tll_s = 5", ["my.toml: tll_s: unknown key", "did you mean 'ttl_s'"]),
        ("memory_mib = 96", "memory = 96", ["nodes[1].memory: unknown key", "memory_mib"]),
        ("keepalive_ms = 500", "keepalive = 500", ["timings.keepalive: unknown key", "keepalive_ms"]),
        ('home = "lb-1"', 'home = "lb-9"', ["vips[0].home", "'lb-9' is no director", "lb-1, lb-2"]),
        ('home = "lb-1"\n', "", ["vips[0].home", "missing"]),
        ("198.18.2.0/24", "10.0.0.0/24", ["segments.heartbeat", "10.0.0.0/24", "198.18.0.0/15", "203.0.113.0/24"]),
        ("203.0.113.53", "203.0.113.10", ["203.0.113.10 is taken by nodes client"]),
        ("203.0.113.53", "198.18.1.53", ["nodes resolver", "not a host address of segment internet"]),
        ("deadtime_ms = 3000", "deadtime_ms = 1000", ["timings", "more than twice keepalive_ms"]),
        ("initdead_ms = 10000", "initdead_ms = 2000", ["initdead_ms must be at least deadtime_ms"]),
        ('kernel = "host"', 'kernel = "windows"', ["nodes[0].kernel", "'uml' or 'host'", "windows"]),
        ('role = "web"', 'role = "wbe"', ["nodes[3].role", "'web'"]),
        ('name = "web"', 'name = "webservers"', ["'webservers-1' is too long"]),
        ("count = 2", "count = 3", ["3 of role director", "a lab has 2"]),
        ('"198.18.1.101", "198.18.1.201"', '"198.18.1.101"', ["nodes web-1", "one for each of the 2 VIPs"]),
        ("[segments]", "[segments", ["my.toml is not TOML"]),
    ],
)
def test_a_refusal_names_the_key_its_place_and_what_would_be_right(before: str, after: str, words: list[str]) -> None:
    message = refused(before, after)
    for word in words:
        assert word in message
    assert "Traceback" not in message


def test_an_unknown_topology_names_the_shipped_ones() -> None:
    with pytest.raises(TopologyError) as caught:
        load("no-such")
    assert "ultramonkey" in caught.value.next_step


def test_every_cable_fits_an_interface_name() -> None:
    longest = "n" * model.NODE_NAME_MAX + ".eth0"
    assert len(longest) <= 15
