"""The readers of configuration files and tables, with literal text and with the files of the shipped topology."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.formats import exports, ha_cf, haresources, ipvsadm, ldirectord_cf
from harness.formats.exports import Export
from harness.formats.ha_cf import Directive
from harness.formats.ipvsadm import Destination, Service
from topology.files import files_of
from topology.load import load


def rendered(node: str, path: str) -> str:
    """A file of a node of the shipped topology."""
    topology = load("ultramonkey")
    found = {file.path: file for file in files_of(topology, topology.machine(node), "lab", "secret")}
    return found[path].data.decode()


# --- ha.cf


HA_CF = """\
# both directors
keepalive 500ms
deadtime 2
deadtime 3   # the later one counts
udpport 694,
bcast eth1,eth2
ucast eth2 198.18.2.11
ucast\teth0 198.18.1.11
mcast eth3 225.0.0.1 694 1 0
serial /dev/ttyS0
#node lb-9
node LB-1 lb-2
"""


def test_ha_cf_is_read_as_heartbeat_reads_it() -> None:
    found = ha_cf.parse(HA_CF)
    assert found.directives[0] == Directive(2, "keepalive", ("500ms",))
    assert (found.keepalive_ms, found.deadtime_ms) == (500, 3000)
    assert found.last("deadtime") == (4, "3")
    assert found.udpport == 694
    assert found.interfaces == ("eth1", "eth2", "eth0", "eth3")
    assert found.node_names == ("lb-1", "lb-2")
    assert found.uses_haresources


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("", 694),
        ("udpport 6940", 6940),
        ("udpport 6940,", 6940),
        ("  udpport\t6940 # ours", 6940),
        ("udpport 6940\r", 6940),
        ("udpport 694\nudpport 695", 695),
        ("udpport ha-cluster", 694),
        ("#udpport 6940", 694),
    ],
)
def test_the_port_of_heartbeats(line: str, port: int) -> None:
    assert ha_cf.parse(line).udpport == port


@pytest.mark.parametrize(
    ("line", "deadtime_ms"),
    [
        ("", 30_000),
        ("deadtime 3", 3000),
        ("deadtime 3000ms", 3000),
        ("deadtime 2.5", 2500),
        ("deadtime 7 # slow", 7000),
        ("deadtime 3 weeks", 30_000),
    ],
)
def test_a_duration_that_cannot_be_read_leaves_the_default(line: str, deadtime_ms: int) -> None:
    assert ha_cf.parse(f"keepalive 500ms\n#deadtime 9\n{line}\n").deadtime_ms == deadtime_ms


@pytest.mark.parametrize("line", ["crm yes", "crm ON", "pacemaker respawn", "crm no\ncrm true"])
def test_pacemaker_replaces_haresources(line: str) -> None:
    assert not ha_cf.parse(line).uses_haresources


def test_the_shipped_ha_cf() -> None:
    found = ha_cf.parse(rendered("lb-1", ha_cf.PATH))
    assert (found.keepalive_ms, found.deadtime_ms, found.udpport) == (500, 3000, 694)
    assert found.interfaces == ("eth2", "eth1")
    assert found.node_names == ("lb-1", "lb-2")
    assert found.uses_haresources


# --- haresources


def test_haresources_has_a_group_for_each_line_and_joins_lines_at_a_backslash() -> None:
    text = "# both\nLB-1 \\\n\tldirectord::vip.cf IPaddr2::203.0.113.101/24/eth0\nlb-2 203.0.113.102 apache # 2\n"
    first, second = haresources.parse(text)
    assert (first.line, first.node, first.addresses) == (2, "lb-1", ("203.0.113.101",))
    assert first.ldirectord_files == ("vip.cf",)
    assert [(each.script, each.arguments) for each in second.resources] == [
        ("IPaddr", ("203.0.113.102",)),
        ("apache", ()),
    ]
    assert (second.line, second.addresses, second.ldirectord_files) == (4, ("203.0.113.102",), ())


def test_the_shipped_haresources() -> None:
    groups = haresources.parse(rendered("lb-2", haresources.PATH))
    assert {group.node: group.addresses for group in groups} == {
        "lb-1": ("198.18.1.1", "203.0.113.101"),
        "lb-2": ("198.18.1.2", "203.0.113.102"),
    }


# --- ldirectord.cf


LDIRECTORD_CF = """\
checktimeout=3
checkinterval = 2
maintenancedir = /etc/ha.d/maintenance # ours
fork=yes
virtual=203.0.113.101:http
        real=198.18.1.101->198.18.1.103:80 masq
\t# one more
\treal=198.18.1.104:80 gate "alive", "OK"
\tchecktype=negotiate # the default
\tcheckinterval=5

\trequest="lost"
virtual=7
\treal=198.18.1.101 ipip
"""


def test_ldirectord_cf_is_read_as_ldirectord_reads_it() -> None:
    found = ldirectord_cf.parse(LDIRECTORD_CF)
    first, mark = found.services
    assert (first.line, first.address, first.port, first.fwmark) == (5, "203.0.113.101:http", 80, False)
    assert [(real.server, real.count, real.port, real.forward) for real in first.reals] == [
        ("198.18.1.101", 3, 80, "masq"),
        ("198.18.1.104", 1, 80, "gate"),
    ]
    assert (first.reals[1].has_request, first.reals[1].has_receive) == (True, True)
    assert (first.checktype, first.service, first.negotiates) == ("negotiate", "http", True)
    assert (mark.fwmark, mark.port, mark.service, mark.reals[0].port) == (True, 0, "none", 0)
    assert [(setting.line, setting.number) for s in found.services if (setting := found.of(s, "checkinterval"))] == [
        (10, 5),
        (2, 2),
    ]
    assert (found.forks, found.maintenance_folder) == (True, "/etc/ha.d/maintenance # ours")


def test_a_line_that_belongs_to_the_service_above_is_noted() -> None:
    assert ldirectord_cf.parse(LDIRECTORD_CF).stray == 12
    assert ldirectord_cf.parse("virtual=203.0.113.101:80\nreal=198.18.1.101:80 masq\n").stray == 2
    assert ldirectord_cf.parse("virtual=203.0.113.101:80\n\treal=198.18.1.101:80 masq\nfork=yes\n").stray == 0


def test_the_shipped_ldirectord_cf() -> None:
    found = ldirectord_cf.parse(rendered("lb-1", "/etc/ha.d/ldirectord.cf"))
    assert not found.stray
    assert [(service.address, len(service.reals)) for service in found.services] == [
        ("203.0.113.101:80", 6),
        ("203.0.113.102:80", 6),
    ]
    assert found.maintenance_folder == "/etc/ha.d/maintenance"
    assert {real.forward for service in found.services for real in service.reals} == {"masq"}


# --- ipvsadm


PRINTED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  203.0.113.101:80 wlc persistent 360
  -> 198.18.1.101:80              Masq    1      3          11
  -> 198.18.1.102:80              Route   0      0          2
TCP  203.0.113.102:80 sh (sh-port)
FWM  7 wrr persistent 600 mask 255.255.255.0
  -> 198.18.1.103:0               Tunnel  2      0          0
UDP  [2001:db8::1]:53 rr ops
  -> [2001:db8::2]:53             Masq    1      0          0
"""


def test_an_ipvs_table_is_read_as_ipvsadm_prints_it() -> None:
    assert ipvsadm.parse(PRINTED) == (
        Service(
            "TCP",
            "203.0.113.101:80",
            "wlc",
            360,
            (Destination("198.18.1.101", 80, "Masq", 1, 3, 11), Destination("198.18.1.102", 80, "Route", 0, 0, 2)),
        ),
        Service("TCP", "203.0.113.102:80", "sh", 0),
        Service("FWM", "7", "wrr", 600, (Destination("198.18.1.103", 0, "Tunnel", 2, 0, 0),)),
        Service("UDP", "[2001:db8::1]:53", "rr", 0, (Destination("[2001:db8::2]", 53, "Masq", 1, 0, 0),)),
    )
    assert ipvsadm.parse("") == ()


def test_the_sync_daemons_are_listed_by_role() -> None:
    printed = "master sync daemon (mcast=eth2, syncid=1)\nbackup sync daemon (mcast=eth2, syncid=2)\n"
    assert ipvsadm.parse_daemons(printed) == ("master", "backup")
    assert ipvsadm.parse_daemons("\n") == ()


# --- exports


def test_exports_has_an_entry_for_each_client() -> None:
    text = '/srv/a -sync,fsid=1 web-1(rw) \\\n  web-2 # all\n"/srv/my b" (ro)\n/srv/c\n'
    assert exports.parse(text) == (
        Export(1, "/srv/a", "web-1", ("sync", "fsid=1", "rw")),
        Export(1, "/srv/a", "web-2", ("sync", "fsid=1", "")),
        Export(3, "/srv/my b", "", ("ro",)),
        Export(4, "/srv/c", "", ()),
    )


def test_the_output_of_exportfs_is_read_too() -> None:
    (found,) = exports.parse("/srv/uploads  198.18.1.0/24(sync,wdelay,fsid=1,sec=sys,rw)\n")
    assert (found.path, found.client) == ("/srv/uploads", "198.18.1.0/24")
    assert found.options == ("sync", "wdelay", "fsid=1", "sec=sys", "rw")


def test_the_shipped_exports() -> None:
    (found,) = exports.parse(rendered("web-1", "/etc/exports"))
    assert (found.path, found.client) == ("/srv/uploads", "198.18.1.0/24")
    assert "fsid=1" in found.options


# --- all of them


@given(st.one_of(st.text(), st.text(alphabet="#\\\"'{}()=:,-> \t\r\n0123456789abciruvtelopns")))
def test_no_text_makes_a_reader_raise(text: str) -> None:
    found = ha_cf.parse(text)
    assert found.keepalive_ms >= 1
    assert 0 < found.udpport < 100_000
    assert isinstance(found.interfaces, tuple)
    for reader in (haresources.parse, ldirectord_cf.parse, exports.parse, ipvsadm.parse, ipvsadm.parse_daemons):
        reader(text)
    assert all(isinstance(group.addresses, tuple) for group in haresources.parse(text))


def test_a_reader_depends_on_no_other_part_of_the_code() -> None:
    for path in Path(ha_cf.__file__).parent.glob("*.py"):
        imported = re.findall(r"(?m)^(?:from|import) ((?:harness|topology|faults|loadtests)[\w.]*)", path.read_text())
        assert all(name.startswith("harness.formats") for name in imported), path
