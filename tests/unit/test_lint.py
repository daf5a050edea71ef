"""Each lint rule with a minimal text that triggers it, and one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.formats.ha_cf import milliseconds
from topology.files import files_of
from topology.lint import KINDS, Config, LabFacts, LintFinding, examine
from topology.lint.model import ClusterFiles, FileKind, Hit, matches
from topology.load import load

HA_CF = "/etc/ha.d/ha.cf"
AUTHKEYS = "/etc/ha.d/authkeys"
HARESOURCES = "/etc/ha.d/haresources"
LDIRECTORD = "/etc/ha.d/ldirectord.cf"
SYSCTL = "/etc/monkeywrench/sysctl.conf"
SYNC = "/etc/monkeywrench/ipvs-sync"
MY_CNF = "/etc/mysql/mariadb.conf.d/60-site.cnf"
EXPORTS = "/etc/exports"
UPLOADS = "/etc/monkeywrench/uploads.mount"
GMOND = "/etc/ganglia/gmond.conf"
LSYNCD = "/etc/lsyncd/lsyncd.conf.lua"
CRON = "/etc/cron.d/backup"
DEBIANS = '\t(echo ">>>"; cat -; echo "<<<")\t| cat - >> $HA_FIFO'
IN_ONE = """\tprintf '>>>\\n%s\\n<<<\\n' "$(cat)" >> "$HA_FIFO\""""


def mine(path: str, text: str, node: str = "lb-1", mode: int = 0o644) -> Config:
    """A file of the user's; its source has its name, so that findings are easy to tell apart."""
    return Config(node, path, text, 0o600 if path == AUTHKEYS and mode == 0o644 else mode, f"my/{node}{path}")


def labs(path: str, text: str, node: str = "lb-1") -> Config:
    """A file that the lab rendered."""
    return replace(mine(path, text, node), source="")


def both(path: str, one: str, two: str) -> tuple[Config, ...]:
    """A file of each director."""
    return mine(path, one, "lb-1"), mine(path, two, "lb-2")


GOOD_HA_CF = """\
keepalive 500ms
warntime 1500ms
deadtime 3
initdead 10
udpport 694
ucast eth2 198.18.2.11
ucast eth2 198.18.2.12
bcast eth1
auto_failback on
node lb-1 lb-2
crm no
"""
GOOD_SYSCTL = """\
net.ipv4.ip_forward = 1
net.ipv4.conf.all.send_redirects = 0
net.ipv4.conf.default.send_redirects = 0
net.ipv4.vs.expire_quiescent_template = 1
net.ipv4.vs.expire_nodest_conn = 1
"""
GLOBALS = """\
checktimeout=3
negotiatetimeout=3
checkinterval=2
quiescent=yes
"""
SERVICE = """\
virtual=203.0.113.101:80
	real=198.18.1.101:80 masq
	real=198.18.1.102:80 masq
	service=http
	request="alive"
	receive="OK"
"""
GOOD_LDIRECTORD = GLOBALS + SERVICE


def ha_cf(old: str = "", new: str = "") -> tuple[Config, ...]:
    """A director's ha.cf with one thing changed."""
    assert old in GOOD_HA_CF
    return (mine(HA_CF, GOOD_HA_CF.replace(old, new, 1) if old else GOOD_HA_CF + new),)


def ldirectord(old: str = "", new: str = "", sysctl: str = GOOD_SYSCTL) -> tuple[Config, ...]:
    """A director's ldirectord.cf with one thing changed."""
    assert old in GOOD_LDIRECTORD
    text = GOOD_LDIRECTORD.replace(old, new, 1) if old else GOOD_LDIRECTORD + new
    return mine(LDIRECTORD, text), labs(SYSCTL, sysctl)


def sysctl(old: str = "", new: str = "") -> tuple[Config, ...]:
    """A director's sysctl.conf with one thing changed."""
    assert old in GOOD_SYSCTL
    return mine(SYSCTL, GOOD_SYSCTL.replace(old, new, 1) if old else GOOD_SYSCTL + new), labs(HA_CF, GOOD_HA_CF)


def script(*lines: str) -> tuple[Config, ...]:
    """A cron file."""
    return (mine(CRON, "".join(f"{line}\n" for line in lines)),)


def my_cnf(*lines: str) -> tuple[Config, ...]:
    """Options of the database server."""
    return (mine(MY_CNF, "".join(f"{line}\n" for line in ("[mysqld]", *lines)), "db"),)


def sync(own: str = "1", peer: str = "2") -> str:
    """Both sync daemons of a director."""
    return f"ipvsadm --start-daemon master --syncid {own}\nipvsadm --start-daemon backup --syncid {peer}\n"


@dataclass(frozen=True)
class Case:
    """``bad`` sets ``rule`` off on ``line`` with ``telling`` words, ``good`` does not."""

    rule: str
    bad: tuple[Config, ...]
    line: int
    telling: str
    good: tuple[Config, ...]
    lab: LabFacts | None = None

    def __str__(self) -> str:
        return f"{self.rule}: {self.telling}"


SERVERS_12 = "".join(f"\treal=198.18.1.{100 + number}:80 masq\n" for number in range(12))
PERSISTENT = ("\tservice=http\n", "\tservice=http\n\tpersistent=600\n")
ROUTES = labs(
    "/etc/monkeywrench/network.batch",
    "rule add pref 101 from 198.18.1.101 lookup 1\nroute replace default via 198.18.1.1 dev eth0 table 1 onlink\n",
    "web-1",
)
WEB = labs("/etc/apache2/sites-enabled/site.conf", "", "web-1")

LAB = LabFacts({"203.0.113.101": "lb-1"}, frozenset({"198.18.1.101", "198.18.1.102", "203.0.113.101"}), True)
VIP_LINE = "lb-1 IPaddr2::203.0.113.101/24/eth0\n"
ETH0 = "address replace 198.18.1.31/24 dev eth0\n"
HAS_ETH0 = labs("/etc/monkeywrench/network.batch", ETH0)
LDIRECTORD_RUNS = labs("/etc/monkeywrench/services", "heartbeat\nldirectord\n")
SEND = "udp_send_channel {{ mcast_join = {} port = 8649 }}\n"

CASES = [
    Case("ha_cf.failback_differs", ha_cf("back on", "back off"), 9, "topology says", ha_cf(), LAB),
    Case(
        "ha_cf.failback_differs",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("back on", "back off")),
        9,
        "on on lb-1",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("back on", "back yes")),
    ),
    Case(
        "ha_cf.ucast_interface",
        (mine(HA_CF, "ucast eth0 198.18.1.9\nucast ens33 198.18.1.9\n"), HAS_ETH0),
        2,
        "no interface 'ens33'",
        (mine(HA_CF, "ucast eth0 198.18.1.9\n"), HAS_ETH0),
    ),
    Case(
        "haresources.interface",
        (mine(HARESOURCES, "lb-1 IPaddr2::203.0.113.101/24/ens33\n"), HAS_ETH0),
        1,
        "no interface 'ens33'",
        (mine(HARESOURCES, "lb-1 IPaddr2::192.0.2.1/24/eth0:1/192.0.2.255 192.0.2.2/24/192.0.2.255\n"), HAS_ETH0),
    ),
    Case(
        "haresources.address_twice",
        (mine(HARESOURCES, "lb-1 a::b 192.0.2.1/24\nlb-2 c::d IPaddr::192.0.2.1/24\n"),),
        2,
        "also on line 1",
        (mine(HARESOURCES, "lb-1 a::b 192.0.2.1/24\nlb-2 c::d IPaddr::192.0.2.2/24\n"),),
    ),
    Case(
        "haresources.vips",
        (mine(HARESOURCES, "lb-1 IPaddr2::203.0.113.102/24/eth0\n"),),
        0,
        "is on no line",
        (mine(HARESOURCES, VIP_LINE),),
        LAB,
    ),
    Case("ldirectord.stray_lines", ldirectord("\tservice", "service"), 8, "indent them", ldirectord()),
    Case(
        "ldirectord.stray_lines",
        ldirectord("\treal=198.18.1.102", "\n\treal=198.18.1.102"),
        8,
        "no empty",
        ldirectord(),
    ),
    Case(
        "ldirectord.external_without_command",
        ldirectord("\tservice", "\tchecktype=external\n\tservice"),
        8,
        "/bin/true",
        ldirectord("\tservice", "\tchecktype=external\n\tcheckcommand=/bin/false\n\tservice"),
    ),
    Case(
        "ldirectord.plain_to_tls",
        ldirectord("=http\n", "=http\n\tcheckport=443\n"),
        9,
        "without TLS to port 443",
        ldirectord("=http\n", "=https\n\tcheckport=443\n"),
    ),
    Case("ldirectord.plain_to_tls", ldirectord("=http", "=https"), 8, "does not speak TLS", ldirectord()),
    Case(
        "ldirectord.fallback_port",
        ldirectord("\tservice", "\tfallback=198.18.1.9:8080 gate\n\tservice"),
        8,
        "not 8080",
        ldirectord("\tservice", "\tfallback=198.18.1.9:8080 masq\n\tservice"),
    ),
    Case(
        "ldirectord.not_supervised",
        (*ldirectord(), LDIRECTORD_RUNS),
        0,
        "another one every second",
        (*ldirectord(new="supervised=yes\n"), LDIRECTORD_RUNS),
    ),
    Case("ldirectord.not_of_the_lab", ldirectord("203.0.113.101", "192.0.2.80"), 5, "no VIP", ldirectord(), LAB),
    Case(
        "ldirectord.not_of_the_lab", ldirectord("203.0.113.101", "192.0.2.80"), 0, "is served by no", ldirectord(), LAB
    ),
    Case("ldirectord.not_of_the_lab", ldirectord("198.18.1.102", "192.0.2.11"), 7, "no node", ldirectord(), LAB),
    Case(
        "sysctl.overridden",
        (mine("/etc/sysctl.d/50.conf", "net/ipv4/ip_forward = 0\n"), labs(SYSCTL, GOOD_SYSCTL)),
        1,
        "has no effect",
        (mine("/etc/sysctl.d/50.conf", "net.ipv4.ip_forward = 1\nvm.swappiness = 1\n"), labs(SYSCTL, GOOD_SYSCTL)),
    ),
    Case(
        "sysctl.sync_versions_differ",
        (
            *sysctl(new="net.ipv4.vs.sync_version = 0\n"),
            labs(HA_CF, GOOD_HA_CF, "lb-2"),
            labs(SYSCTL, GOOD_SYSCTL, "lb-2"),
        ),
        6,
        "old format",
        (
            *sysctl(new="net.ipv4.vs.sync_version = 1\n"),
            labs(HA_CF, GOOD_HA_CF, "lb-2"),
            labs(SYSCTL, GOOD_SYSCTL, "lb-2"),
        ),
    ),
    Case(
        "site.overwritten",
        (mine("/srv/site/x.html", "mine", "web-2"), labs("/srv/site/x.html", "lab's", "web-1")),
        0,
        "Replication overwrites",
        (mine("/srv/site/x.html", "mine", "web-2"), mine("/srv/site/x.html", "mine", "web-1")),
        LabFacts({}, frozenset(), True, "web-1"),
    ),
    Case(
        "exports.same_fsid",
        (mine(EXPORTS, "/a 192.0.2.0/24(rw,fsid=1)\n/b 192.0.2.0/24(rw,fsid=1)\n"),),
        2,
        "also that of '/a'",
        (mine(EXPORTS, "/a 192.0.2.0/24(rw,fsid=1) 198.18.1.0/24(rw,fsid=1)\n/b 192.0.2.0/24(rw,fsid=2)\n"),),
    ),
    Case(
        "exports.read_only",
        (mine(EXPORTS, "/srv/uploads 192.0.2.0/24(sync,fsid=1)\n"),),
        1,
        "every upload fails",
        (mine(EXPORTS, "/srv/uploads 192.0.2.0/24(rw,fsid=1)\n/srv/docs 192.0.2.0/24(ro,fsid=2)\n"),),
    ),
    Case(
        "my_cnf.not_durable",
        my_cnf("log_bin", "sync_binlog=9"),
        3,
        "up to 9 groups",
        my_cnf("log_bin", "sync_binlog=1"),
    ),
    Case("my_cnf.unreachable", my_cnf("bind-address = 127.0.0.1"), 2, "do not reach", my_cnf("bind-address = 0.0.0.0")),
    Case(
        "my_cnf.unreachable",
        (*my_cnf("bind-address = 10.0.0.5"), labs("/etc/monkeywrench/network.batch", ETH0, "db")),
        2,
        "db has no such address",
        (*my_cnf("bind-address = 198.18.1.31"), labs("/etc/monkeywrench/network.batch", ETH0, "db")),
    ),
    Case("my_cnf.unreachable", my_cnf("skip-networking"), 2, "do not reach", my_cnf("skip-name-resolve")),
    Case(
        "shell.delete_despite_errors",
        script("* * * * * root ssh web-2 'rsync -a --delete --ignore-errors a/ b/'"),
        1,
        "--ignore-errors",
        script("* * * * * root echo 'rsync -a --delete --ignore-errors a/ b/'"),
    ),
    Case(
        "gmond.groups_differ",
        (mine(GMOND, SEND.format("239.2.11.71"), "web-1"), mine(GMOND, SEND.format("239.2.11.72"), "web-2")),
        0,
        "239.2.11.72:8649 on web-2",
        (mine(GMOND, SEND.format("239.2.11.71"), "web-1"), mine(GMOND, SEND.format("239.2.11.71"), "web-2")),
    ),
    Case(
        "apache.files_differ",
        (mine("/etc/apache2/x.conf", "KeepAlive On", "web-1"), labs("/etc/apache2/x.conf", "KeepAlive Off", "web-2")),
        0,
        "differs between the real servers",
        (
            mine("/etc/apache2/x.conf", "Listen 192.0.2.1:80 # web-1", "web-1"),
            mine("/etc/apache2/x.conf", "Listen 192.0.2.2:80 # web-2", "web-2"),
        ),
    ),
    # ha.cf
    Case("ha_cf.implausible_duration", ha_cf("deadtime 3", "deadtime 3000"), 3, "write 3000ms", ha_cf("3", "3000ms")),
    Case("ha_cf.implausible_duration", ha_cf("500ms", "5ms"), 1, "busy director", ha_cf("500ms", "50ms")),
    Case("ha_cf.initdead_against_deadtime", ha_cf("10", "9"), 4, "declares the other dead", ha_cf("10", "10000ms")),
    Case("ha_cf.warntime_against_deadtime", ha_cf("1500ms", "4"), 2, "never warns", ha_cf("1500ms", "2999ms")),
    Case(
        "ha_cf.udpport_after_media",
        ha_cf("udpport 694\nucast eth2 198.18.2.11\n", "ucast eth2 198.18.2.11\nudpport 1694\n"),
        6,
        "after a medium that uses it (line 5)",
        ha_cf("udpport 694", "mcast eth2 239.0.0.1 694 1 0\nudpport 1694"),  # mcast names its port itself
    ),
    Case("ha_cf.heartbeat_paths", ha_cf("bcast eth1\n"), 6, "only one path ('eth2')", ha_cf("eth1", "eth1 eth2")),
    Case("ha_cf.failback", ha_cf("auto_failback on\n"), 0, "not set, which means legacy", ha_cf("back on", "back off")),
    Case("ha_cf.failback", ha_cf("back on", "back legacy"), 9, "is legacy", ha_cf()),
    Case(
        "ha_cf.ipfail",
        ha_cf(new="respawn hacluster /usr/libexec/heartbeat/ipfail\n"),
        12,
        "no ping nodes to compare",
        ha_cf(new="ping 198.18.1.1\nrespawn hacluster /usr/libexec/heartbeat/ipfail\n"),
    ),
    Case("ha_cf.stonith", ha_cf(new="stonith_host * ssh lb-1 lb-2\n"), 12, "takes nothing over", ha_cf()),
    Case(
        "ha_cf.ucast_to_itself",
        (*ha_cf("ucast eth2 198.18.2.12\n"), labs("/etc/monkeywrench/network.batch", "address replace 198.18.2.11/24")),
        6,
        "lb-1's own address",
        (*ha_cf(), labs("/etc/monkeywrench/network.batch", "address replace 198.18.2.11/24 dev eth2\n")),
    ),
    Case(
        "ha_cf.deadtimes_differ",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("deadtime 3", "deadtime 8")),
        3,
        "3 s on lb-1, 8 s on lb-2",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("deadtime 3", "deadtime 3000ms")),
    ),
    Case(
        "ha_cf.node_lists_differ",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("node lb-1 lb-2", "node lb-2")),
        10,
        "lb-1 lb-2 on lb-1, lb-2 on lb-2",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("node lb-1 lb-2", "node lb-2\nnode lb-1")),
    ),
    Case(
        "ha_cf.ports_differ",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("694", "1694")),
        5,
        "do not hear each other",
        both(HA_CF, GOOD_HA_CF, GOOD_HA_CF.replace("udpport 694\n", "")),
    ),
    # authkeys
    Case(
        "authkeys.permissions",
        (mine(AUTHKEYS, "auth 1\n1 sha1 key\n", mode=0o620),),
        0,
        "anyone who can write it",
        (mine(AUTHKEYS, "auth 1\n1 sha1 key\n", mode=0o600),),
    ),
    Case(
        "authkeys.insecure_method",
        (mine(AUTHKEYS, "auth 1\n1 crc\n"),),
        2,
        "without a secret",
        (mine(AUTHKEYS, "auth 2\n1 crc\n2 sha1 key\n"),),
    ),
    Case(
        "authkeys.keys_differ",
        both(AUTHKEYS, "auth 1\n1 sha1 key\n", "auth 1\n1 sha1 other\n"),
        2,
        "both take both VIPs",
        both(AUTHKEYS, "auth 1\n1 sha1 key\n", "auth 1\n1  sha1  key\n2 sha1 unused\n"),
    ),
    Case(
        "authkeys.keys_differ",
        both(AUTHKEYS, "auth 1\n1 sha1 key\n2 sha1 new\n", "auth 2\n1 sha1 key\n2 sha1 new\n"),
        1,
        "auth 1 on lb-1, auth 2 on lb-2",
        both(AUTHKEYS, "auth 2\n1 sha1 key\n2 sha1 new\n", "auth 2\n1 sha1 key\n2 sha1 new\n"),
    ),
    # haresources
    Case(
        "haresources.first_resource",
        (mine(HARESOURCES, "lb-1 IPaddr2::203.0.113.101\nlb-2 IPaddr2::203.0.113.101\n"),),
        2,
        "is also on line 1",
        (mine(HARESOURCES, "lb-1 IPaddr2::203.0.113.101 apache2\nlb-2 IPaddr2::203.0.113.102 apache2\n"),),
    ),
    Case(
        "haresources.first_resource",
        (mine(HARESOURCES, "lb-1 apache2\nlb-2 IPaddr2::203.0.113.102 apache2\n"),),
        1,
        "is also on line 2",
        (mine(HARESOURCES, "lb-1 apache2\n"),),
    ),
    Case(
        "haresources.shared_ldirectord",
        (mine(HARESOURCES, "lb-1 a ldirectord::vip.cf\nlb-2 \\\n b ldirectord::vip.cf # shared\n"),),
        2,
        "removes all its virtual services",
        (mine(HARESOURCES, "lb-1 a ldirectord::vip1.cf\nlb-2 b ldirectord::vip2.cf\n"),),
    ),
    Case(
        "haresources.reply_gateway",
        (mine(HARESOURCES, "lb-1 IPaddr2::203.0.113.101/24/eth0\n"), labs(LDIRECTORD, GOOD_LDIRECTORD), ROUTES),
        1,
        "through 198.18.1.1, which is not a resource",
        (
            mine(HARESOURCES, "lb-1 IPaddr2::198.18.1.1/24/eth1 203.0.113.101\n"),
            labs(LDIRECTORD, GOOD_LDIRECTORD),
            ROUTES,
        ),
    ),
    Case(
        "haresources.ldirectord_under_heartbeat",
        (mine(HARESOURCES, "lb-1 a ldirectord::vip.cf\n"), mine("/etc/ha.d/vip.cf", "supervised=yes\n" + SERVICE)),
        1,
        "never ends",
        (mine(HARESOURCES, "lb-1 a ldirectord::vip.cf\n"), mine("/etc/ha.d/conf/vip.cf", SERVICE)),
    ),
    Case(
        "haresources.ldirectord_under_heartbeat",
        (
            *both(HARESOURCES, "lb-1 a ldirectord::vip.cf\n", "lb-1 a ldirectord::vip.cf\n"),
            mine("/etc/ha.d/vip.cf", SERVICE, "lb-2"),
        ),
        1,
        "lb-1 lacks this file",
        (
            *both(HARESOURCES, "lb-1 a ldirectord::vip.cf\n", "lb-1 a ldirectord::vip.cf\n"),
            *both("/etc/ha.d/vip.cf", SERVICE, SERVICE),
        ),
    ),
    Case(
        "haresources.files_differ",
        both(HARESOURCES, "lb-1 a\nlb-2 b\n", "lb-1 a\nlb-1 b\n"),
        2,
        "both directors or none",
        both(HARESOURCES, "lb-1 a\nlb-2 b\n", "# the same\nLB-1   a\nlb-2 \\\nb\n"),
    ),
    Case(
        "only_for_testing.loses_packets",
        (mine("/etc/ha.d/OnlyForTesting", "rcvloss=0\nxmitloss=1\n"),),
        2,
        "test code (xmitloss=1)",
        (mine("/etc/ha.d/other", "xmitloss=1\n"),),
    ),
    Case(
        "shellfuncs.message_in_pieces",
        (mine("/etc/ha.d/shellfuncs", f"ha_clustermsg() {{\n{DEBIANS}\n}}\n"),),
        2,
        "in pieces",
        (mine("/etc/ha.d/shellfuncs", f"ha_clustermsg() {{\n{DEBIANS}\n}}\nha_clustermsg() {{\n{IN_ONE}\n}}\n"),),
    ),
    # ldirectord.cf
    Case("ldirectord.quiescent_unset", ldirectord("quiescent=yes\n"), 0, "but no in the code", ldirectord()),
    Case(
        "ldirectord.quiescent_unset",
        ldirectord("quiescent=yes\n"),
        0,
        "but no in the code",
        (
            mine(LDIRECTORD, GOOD_LDIRECTORD.replace("quiescent=yes\n", "") + "\tquiescent=yes\n"),
            labs(SYSCTL, GOOD_SYSCTL),
        ),
    ),
    Case("ldirectord.checkinterval_unset", ldirectord("checkinterval=2\n"), 0, "10 s pass", ldirectord()),
    Case(
        "ldirectord.timeouts_unset",
        ldirectord("checktimeout=3\nnegotiatetimeout=3\n"),
        3,
        "after 30 s",
        ldirectord("checktimeout=3\n"),
    ),
    Case("ldirectord.blind_checktype", ldirectord(new="\tchecktype=on\n"), 11, "stays in service", ldirectord()),
    Case("ldirectord.blind_checktype", ldirectord(new="\tchecktype=off\n"), 11, "ever put in", ldirectord()),
    Case(
        "ldirectord.blind_checktype", ldirectord(new="\tchecktype=connect\n"), 11, "accepts connections", ldirectord()
    ),
    Case(
        "ldirectord.blind_checktype",
        ldirectord(new="\tchecktype=ping\n"),
        11,
        "answers pings",
        ldirectord(new="\tchecktype=negotiate\n"),
    ),
    Case(
        "ldirectord.blind_checktype",
        (mine(LDIRECTORD, GOOD_LDIRECTORD.replace(".101:80\n", ".101:8080\n").replace("\tservice=http\n", "")),),
        5,
        "The service is none",
        ldirectord("\tservice=http\n"),  # port 80 implies it
    ),
    Case("ldirectord.no_receive", ldirectord('\treceive="OK"\n'), 5, "even an error page", ldirectord()),
    Case(
        "ldirectord.no_receive",
        ldirectord('\treceive="OK"\n'),
        5,
        "no receive to compare",
        (mine(LDIRECTORD, GLOBALS + 'virtual=1.2.3.4:80\n\treal=1.2.3.5:80 masq 1 "alive", "OK"\n'),),
    ),
    Case("ldirectord.no_request", ldirectord('\trequest="alive"\n'), 5, "fetches the front page", ldirectord()),
    Case(
        "ldirectord.head_with_receive",
        ldirectord(new="\thttpmethod=HEAD\n"),
        11,
        "receive never matches",
        ldirectord(new="\thttpmethod=GET\n"),
    ),
    Case(
        "ldirectord.sql_check",
        ldirectord("service=http", "service=mysql"),
        8,
        "has no timeout",
        ldirectord("service=http", "service=simpletcp"),
    ),
    Case(
        "ldirectord.sql_check",
        ldirectord("service=http", "service=pgsql"),
        8,
        "lacks login",
        ldirectord("service=http", 'service=pgsql\n\tlogin="check"'),
    ),
    Case(
        "ldirectord.port_cannot_change",
        ldirectord("real=198.18.1.101:80 masq", "real=198.18.1.101:8080 gate"),
        6,
        "reach port 80 of this real server, not 8080",
        ldirectord("real=198.18.1.101:80 masq", "real=198.18.1.101:8080 masq"),
    ),
    Case(
        "ldirectord.mixed_forwarding", ldirectord("102:80 masq", "102:80 ipip"), 7, "others of the same", ldirectord()
    ),
    Case(
        "ldirectord.address_without_port",
        ldirectord("=203.0.113.101:80", "=203.0.113.101"),
        5,
        "firewall mark 203",
        ldirectord("=203.0.113.101:80", "=203"),
    ),
    Case(
        "ldirectord.unknown_scheduler",
        ldirectord(new="\tscheduler=wlcc\n"),
        11,
        "mean 'wlc'",
        ldirectord(new="\tscheduler=mh\n"),
    ),
    Case(
        "ldirectord.slow_notice",
        ldirectord("quiescent", "failurecount=20\nquiescent"),
        4,
        "up to 100 s",
        ldirectord("quiescent", "failurecount=3\nquiescent"),
    ),
    Case(
        "ldirectord.slow_rounds",
        (
            mine(
                LDIRECTORD,
                GOOD_LDIRECTORD.replace("timeout=3", "timeout=15").replace("\tservice", SERVERS_12 + "\tservice"),
            ),
        ),
        0,
        "fork is not yes, run one after another: when all real servers but one hang, 152 s pass",
        ldirectord(),
    ),
    Case(
        "ldirectord.slow_rounds",
        (
            mine(
                LDIRECTORD,
                "fork=yes\n" + GLOBALS.replace("=3", "=60") + SERVICE + SERVICE.replace("113.101", "113.102"),
            ),
        ),
        1,
        "of a virtual service run one after another: when all real servers but one hang, 62 s",
        (
            mine(
                LDIRECTORD,
                "fork=yes\n" + GLOBALS.replace("=3", "=50") + SERVICE + SERVICE.replace("113.101", "113.102"),
            ),
        ),
    ),
    Case(
        "ldirectord.expiry",
        ldirectord(*PERSISTENT, sysctl=GOOD_SYSCTL.replace("template = 1", "template = 0")),
        9,
        "still gets new connections",
        ldirectord(*PERSISTENT),
    ),
    Case(
        "ldirectord.expiry",
        ldirectord("=yes", "=no", sysctl=""),
        4,
        "packets of its connections are dropped",
        ldirectord("=yes", "=no"),
    ),
    Case(
        "ldirectord.answers_arp",
        (*ldirectord("masq", "gate"), WEB),
        6,
        "answer ARP for the VIP",
        (*ldirectord("masq", "gate"), WEB, labs(SYSCTL, "net.ipv4.conf.all.arp_ignore = 1\n", "web-1")),
    ),
    Case(
        "ldirectord.files_differ",
        both(LDIRECTORD, GOOD_LDIRECTORD, GOOD_LDIRECTORD.replace("\treal=198.18.1.102:80 masq\n", "")),
        0,
        "2 real servers on lb-1, 1 real servers on lb-2",
        both(LDIRECTORD, GOOD_LDIRECTORD, "# the same\n" + GOOD_LDIRECTORD),
    ),
    # sysctl.conf
    Case("sysctl.forwarding_off", sysctl("forward = 1", "forward = 0"), 1, "ip_forward is 0", sysctl()),
    Case("sysctl.forwarding_off", sysctl("net.ipv4.ip_forward = 1\n"), 0, "not set, which means 0", sysctl()),
    Case("sysctl.redirects_on", sysctl("all.send_redirects = 0", "all.send_redirects = 1"), 2, "is 1", sysctl()),
    Case(
        "sysctl.redirects_on",
        sysctl("net.ipv4.conf.default.send_redirects = 0\n"),
        0,
        "default.send_redirects is not set",
        (mine(SYSCTL, "net/ipv4/ip_forward=1\nnet.ipv4.conf.*.send_redirects=0\n"), labs(HA_CF, GOOD_HA_CF)),
    ),
    Case("sysctl.ipvs_zeros", sysctl("template = 1", "template = 0"), 4, "weight 0. Set it to 1", sysctl()),
    Case("sysctl.ipvs_zeros", sysctl("conn = 1", "conn = 0"), 5, "silently dropped", sysctl()),
    Case(
        "sysctl.ipvs_zeros",
        sysctl(new="-net.ipv4.vs.conn_reuse_mode=0\n"),
        6,
        "reuses a port",
        sysctl(new="# net.ipv4.vs.conn_reuse_mode=0\n;net.ipv4.vs.conn_reuse_mode=0\n"),
    ),
    Case(
        "sysctl.answers_arp",
        (*ldirectord("masq", "ipip"), mine(SYSCTL, "net.ipv4.conf.all.arp_announce = 1\n", "web-1")),
        1,
        "Set it to 2",
        (*ldirectord("masq", "ipip"), mine(SYSCTL, "net.ipv4.conf.all.arp_announce = 2\n", "web-1")),
    ),
    # connection sync
    Case(
        "ipvs_sync.both_roles",
        (mine(SYNC, sync().partition("\n")[0]),),
        1,
        "No backup sync daemon",
        (mine(SYNC, sync()),),
    ),
    Case("ipvs_sync.both_roles", (mine(SYNC, "# off\n"),), 0, "No master and no backup", (mine(SYNC, sync()),)),
    Case(
        "ipvs_sync.ids_cross",
        both(SYNC, sync("1", "2"), sync("3", "1")),
        2,
        "accepts sync id 2, but its peer sends 3",
        both(SYNC, sync("1", "2"), sync("2", "1")),
    ),
    # MariaDB
    Case("my_cnf.not_durable", my_cnf("innodb_flush_log_at_trx_commit = 2"), 2, "kill -9 does not", my_cnf()),
    Case(
        "my_cnf.not_durable",
        my_cnf("loose-innodb-flush-log-at-trx-commit=0 # fast"),
        2,
        "a crash of the server alone",
        my_cnf("loose-innodb-flush-log-at-trx-commit=1 # not 0"),
    ),
    Case("my_cnf.not_durable", my_cnf("log-bin"), 2, "log_bin without sync_binlog", my_cnf("log_bin", "sync_binlog=1")),
    Case("my_cnf.not_durable", my_cnf("log_bin=b", "sync_binlog=0"), 3, "sync_binlog=0 with", my_cnf("sync_binlog=0")),
    Case(
        "my_cnf.not_durable",
        my_cnf("log_bin"),
        2,
        "log_bin without",
        my_cnf("log_bin", "skip-log-bin"),
    ),
    Case(
        "my_cnf.not_durable",
        my_cnf("innodb_flush_method=nosync"),
        2,
        "does not flush",
        my_cnf("innodb_flush_method=O_DIRECT"),
    ),
    Case("my_cnf.not_durable", my_cnf("skip-innodb-doublewrite"), 2, "torn pages", my_cnf("innodb-doublewrite")),
    Case("my_cnf.not_durable", my_cnf("innodb_doublewrite=OFF"), 2, "torn pages", my_cnf("innodb_doublewrite=ON")),
    Case(
        "my_cnf.not_durable",
        my_cnf('default-storage-engine="Aria"'),
        2,
        "New tables use Aria",
        my_cnf("[client]", "default-storage-engine=MyISAM"),
    ),
    Case(
        "my_cnf.world_writable",
        (mine(MY_CNF, "[mysqld]\n", "db", 0o666),),
        0,
        "ignores a file that everyone can write",
        (mine(MY_CNF, "[mysqld]\n", "db", 0o664),),
    ),
    # NFS
    Case(
        "exports.asynchronous",
        (mine(EXPORTS, "# uploads\n/srv/up \\\n  *(rw,async,fsid=1)\n"),),
        2,
        "acknowledges writes to '/srv/up'",
        (mine(EXPORTS, "/srv/up -async *(rw,sync,fsid=1) # async\n"),),
    ),
    Case(
        "exports.no_fsid",
        (mine(EXPORTS, "/srv/a *(rw,fsid=1)\n/srv/b web-1(rw,fsid=2) web-2(rw)\n"),),
        2,
        "ESTALE",
        (mine("/etc/exports.d/up.exports", '"/srv/my uploads" -fsid=3 web-1(rw) web-2(ro)\n'),),
    ),
    Case(
        "exports.open_to_all",
        (mine(EXPORTS, "/srv/a web-1 (rw,fsid=1)\n"),),
        1,
        "exported to every client with (rw,fsid=1)",
        (mine(EXPORTS, "/srv/a web-1(rw,fsid=1)\n"),),
    ),
    Case(
        "nfs_mounts.soft",
        (mine("/etc/fstab", "# soft\nweb-1:/srv /srv nfs4 rw,soft 0 0\n"),),
        2,
        "corrupt data silently. Use hard",
        (mine("/etc/fstab", "# soft\nweb-1:/srv /srv nfs rw,hard 0 0\n/dev/a /a ext4 soft 0 0\n"),),
    ),
    Case(
        "nfs_mounts.over_udp",
        (mine(UPLOADS, "198.18.1.101:/srv /srv hard,proto=udp\n", "web-2"),),
        1,
        "Use proto=tcp",
        (mine(UPLOADS, "198.18.1.101:/srv /srv hard,proto=tcp\n", "web-2"),),
    ),
    # Ganglia
    Case(
        "gmond.never_forgets",
        (mine(GMOND, "/* host_dmax\n = 1 */ globals {\n  host_dmax = 0 /* secs */\n}\n"),),
        3,
        "stays in the list forever",
        (mine(GMOND, "globals { host_dmax = 86400 } # host_dmax = 0\n"),),
    ),
    Case(
        "gmond.unicast_metadata",
        (mine(GMOND, "globals {\n  send_metadata_interval = 0\n}\nudp_send_channel { host = lb-1 port = 8649 }\n"),),
        2,
        "until their senders restart too",
        (mine(GMOND, "globals { send_metadata_interval = 0 }\nudp_send_channel { mcast_join = 239.2.11.71 }\n"),),
    ),
    Case(
        "gmond.unicast_metadata",
        (mine(GMOND, 'udp_send_channel {\n  host = "lb-1"\n}\n'),),
        2,
        "not set, which means 0",
        (mine(GMOND, "globals { send_metadata_interval = 30 }\nudp_send_channel { host = lb-1 }\n"),),
    ),
    # rsync
    Case(
        "shell.rsync_of_datadir",
        script("DATA=/var/lib/mysql", "nice rsync -a \\", '  "$DATA/" backup::db # hot'),
        2,
        "is not a backup",
        script("systemctl stop mariadb", "rsync -a /var/lib/mysql/ backup::db"),
    ),
    Case(
        "shell.rsync_of_datadir",
        script("rsync -a backup:/var/lib/mysql/ /var/lib/mysql"),
        1,
        "MySQL bug 35641",
        script("rsync -a --exclude /var/lib/mysql -e ssh /srv/ backup:/srv # /var/lib/mysql"),
    ),
    Case(
        "shell.rsync_of_datadir",
        (
            mine("/root/copy", "#!/bin/bash\nrsync -a /srv/database/data backup:\n"),
            *my_cnf("datadir=/srv/database/data"),
        ),
        2,
        "is not a backup",
        (
            mine("/root/copy", "#!/usr/bin/perl\nrsync -a /srv/database/data backup:\n"),
            *my_cnf("datadir=/srv/database/data"),
        ),
    ),
    Case(
        "shell.delete_despite_errors",
        script("echo rsync", "cd /srv && rsync -a --delete-after --ignore-errors . web-2::site"),
        2,
        "what it could not read",
        script("rsync -a --delete . web-2::site; rsync -a --ignore-errors . web-3::site"),
    ),
    Case("shell.inplace", script("rsync -a --inplace a/ b/"), 1, "half-written", script("echo rsync --inplace")),
    Case(
        "shell.ldirectord_restart",
        script("/usr/sbin/ldirectord vip.cf stop", "/usr/sbin/ldirectord vip.cf start"),
        2,
        "does nothing and exits 0",
        script("ldirectord vip.cf stop", "sleep 5", "ldirectord vip.cf start", "ldirectord vip.cf restart"),
    ),
    Case(
        "lsyncd.deletes_despite_errors",
        (
            mine(
                LSYNCD, 'sync {\n  default.rsync, -- delete = false\n  source = "/srv", rsync = { archive = true } }\n'
            ),
        ),
        1,
        "calls rsync with --ignore-errors",
        (mine(LSYNCD, 'sync { default.rsync, source = "/srv", delete = false }\n--[[ sync { default.rsync } ]]\n'),),
    ),
    Case(
        "lsyncd.inplace",
        (mine(LSYNCD, 'sync {\n delete = false,\n rsync = { inplace = true, _extra = { "-v" } } }\n'),),
        3,
        "half-written",
        (mine(LSYNCD, "sync { rsync = { inplace = false } } -- inplace = true\n"),),
    ),
    Case(
        "lsyncd.source_is_datadir",
        (mine(LSYNCD, 'sync {\n source = "/var/lib/mysql/",\n}\n'),),
        2,
        "is not a backup",
        (mine(LSYNCD, 'sync {\n source = "/var/lib/mysqld",\n target = "/var/lib/mysql" }\n'),),
    ),
]


def telling(findings: Iterable[LintFinding], case: Case) -> list[int]:
    """The lines of the findings with the case's words."""
    return [finding.line for finding in findings if case.telling in finding.reason]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_reports_the_line(case: Case) -> None:
    findings = examine(case.bad, lab=case.lab)
    assert telling(findings, case) == [case.line], "\n".join(str(finding) for finding in findings)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_accepts_what_is_right(case: Case) -> None:
    assert telling(examine(case.good, lab=case.lab), case) == []


Rules = tuple[Callable[..., Any], ...]


def rules_of(kind: FileKind[Any]) -> list[Rules]:
    return [kind.rules, kind.in_context, kind.between]


def name(rule: Callable[..., Any]) -> str:
    return f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"


def test_every_rule_has_a_case() -> None:
    rules = {name(rule) for kind in KINDS for rules in rules_of(kind) for rule in rules}
    assert {case.rule for case in CASES} == rules


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_finding_comes_from_the_named_rule(case: Case) -> None:
    found: list[Hit] = []
    for kind in KINDS:
        rules, in_context, between = (tuple(r for r in rules if name(r) == case.rule) for rules in rules_of(kind))
        files = [config for config in case.bad if matches(config.path, kind.paths)]
        only = replace(kind, rules=rules, in_context=in_context, between=between)
        found += only.findings(files, ClusterFiles(case.bad, 6, case.lab)) if files else []
    assert any(case.telling in finding.reason for finding in found)


def rendered(topology: str = "ultramonkey", source: str = "") -> list[Config]:
    """All files of all nodes of a shipped topology."""
    lab = load(topology)
    return [
        Config(machine.name, file.path, file.data.decode(errors="replace"), file.mode, source and source + file.path)
        for machine in lab.machines
        for file in files_of(lab, machine, "lab", "secret")
    ]


def test_the_labs_own_files_have_no_findings() -> None:
    assert examine(rendered(source="my")) == []


CLASSIC = {
    HA_CF: """\
logfacility local0
mcast eth2 225.0.0.1 694 1 0
auto_failback off
node lb-1 lb-2
ping 198.18.1.1
respawn hacluster /usr/lib/heartbeat/ipfail
""",
    HARESOURCES: "lb-1 ldirectord::ldirectord.cf LVSSyncDaemonSwap::master IPaddr2::203.0.113.101/24/eth0\n",
    LDIRECTORD: """\
checktimeout=10
checkinterval=2
autoreload=no
logfile="local0"
quiescent=yes
virtual=203.0.113.101:80
        fallback=127.0.0.1:80
        real=198.18.1.101:80 gate
        real=198.18.1.102:80 gate
        request="index.html"
        receive="Test Page"
        scheduler=rr
        #persistent=600
""",
}
"""As a cluster of 2005 had them."""


def test_a_classic_configuration_on_the_labs_nodes() -> None:
    configs = [
        replace(config, text=CLASSIC[config.path], source=config.path) if config.path in CLASSIC else config
        for config in rendered()
    ]
    seen = [(finding.file, finding.line, finding.reason) for finding in examine(configs)]
    expected = [
        (HA_CF, 2, "only one path"),
        (LDIRECTORD, 0, "supervised=yes is missing"),
        (LDIRECTORD, 8, "arp_ignore=1"),
    ]
    assert [(file, line) for file, line, _ in seen] == [(file, line) for file, line, _ in expected]
    assert all(words in reason for (_, _, words), (_, _, reason) in zip(expected, seen, strict=True))


def test_only_what_concerns_a_file_of_the_users_is_reported() -> None:
    wrong = GOOD_HA_CF.replace("deadtime 3", "deadtime 8").replace("initdead 10", "initdead 2")
    theirs = labs(HA_CF, wrong, "lb-2")
    assert examine([labs(HA_CF, GOOD_HA_CF), theirs]) == []
    (differ,) = examine([mine(HA_CF, GOOD_HA_CF), theirs])
    assert (differ.file, differ.line, differ.nodes) == ("my/lb-1/etc/ha.d/ha.cf", 3, ("lb-1", "lb-2"))
    assert "8 s on lb-2" in differ.reason


def test_a_contradiction_names_the_file_that_the_user_can_edit() -> None:
    configs = [labs(HA_CF, GOOD_HA_CF), mine(HA_CF, GOOD_HA_CF.replace("deadtime 3", "deadtime 8"), "lb-2")]
    (differ,) = examine(configs)
    assert (differ.file, differ.nodes) == ("my/lb-2/etc/ha.d/ha.cf", ("lb-1", "lb-2"))


def test_a_users_sysctl_is_named_for_what_it_takes_from_the_labs_ldirectord() -> None:
    text = GOOD_LDIRECTORD.replace(*PERSISTENT)
    findings = examine([labs(LDIRECTORD, text), mine(SYSCTL, GOOD_SYSCTL.replace("template = 1", "template = 0"))])
    assert [(finding.file, finding.line) for finding in findings] == [(LDIRECTORD, 9), (f"my/lb-1{SYSCTL}", 4)]


def test_the_same_finding_on_several_nodes_is_reported_once() -> None:
    text = GOOD_HA_CF.replace("warntime 1500ms", "warntime 4")
    configs = [replace(mine(HA_CF, text, node), source="ha.cf") for node in ("lb-2", "lb-1")]
    assert [(found.file, found.line, found.nodes) for found in examine(configs)] == [("ha.cf", 2, ("lb-1", "lb-2"))]


def test_the_order_is_by_file_and_line_whatever_order_the_files_come_in() -> None:
    configs = [config for case in CASES for config in case.bad]
    found = examine(configs)
    assert found == examine(reversed(configs))
    assert [(finding.file, finding.line) for finding in found] == sorted((p.file, p.line) for p in found)


def test_a_secret_is_never_repeated() -> None:
    texts = (
        "auth 1\n1 sha1 hunter2\n",
        "auth 1\n1 sha1 hunter2 hunter2\n",
        "auth 1\n1 hunter2\nhunter2\nauth hunter2\n",
    )
    configs = [mine(AUTHKEYS, text, f"lb-{number}", 0o644) for number, text in enumerate(texts)]
    findings = [finding for config in configs for finding in examine([config])] + examine(configs)
    assert findings
    assert all("hunter2" not in finding.reason for finding in findings)


def test_a_later_option_file_overrides_an_earlier_one() -> None:
    main = mine("/etc/mysql/my.cnf", "[mysqld]\nlog_bin\nsync_binlog=0\n!includedir /etc/mysql/conf.d\n", "db")
    included = mine("/etc/mysql/conf.d/safe.cnf", "[mariadb-10.11]\nsync-binlog = 1\n", "db")
    assert examine([main, included]) == []
    (unsafe,) = examine([replace(main, text="[mysqld]\nlog_bin\nsync_binlog=1\n"), replace(included, text=main.text)])
    assert (unsafe.file, unsafe.line) == ("my/db/etc/mysql/conf.d/safe.cnf", 3)


def test_a_later_sysctl_file_overrides_an_earlier_one() -> None:
    director = labs(HA_CF, GOOD_HA_CF)
    early = mine("/etc/sysctl.d/10-lvs.conf", "net.ipv4.ip_forward = 0\n")
    assert examine([director, early, mine(SYSCTL, GOOD_SYSCTL)]) == []
    (late,) = examine([director, early, mine("/etc/sysctl.d/05-lvs.conf", GOOD_SYSCTL)])
    assert (late.file, late.line) == ("my/lb-1/etc/sysctl.d/10-lvs.conf", 1)


def test_a_real_server_need_not_forward() -> None:
    assert examine([mine(SYSCTL, "net.ipv4.ip_forward = 0\n", "web-1"), WEB]) == []


def test_rounds_are_computed_for_the_number_of_real_servers() -> None:
    text = (
        GLOBALS.replace("timeout=3", "timeout=20")
        + SERVICE
        + SERVICE.replace("113.101", "113.102").replace("1.10", "1.20")
    )
    six, one = (examine([mine(LDIRECTORD, text)], web=web) for web in (6, 1))
    assert [finding.reason for finding in six if "62 s pass" in finding.reason]  # three of four checks hang
    assert not [finding.reason for finding in one if "one after another" in finding.reason]


def test_three_hung_servers_delay_the_check_of_a_fourth_as_measured() -> None:
    four = "virtual=203.0.113.101:80\n" + "".join(f"\treal=198.18.1.10{n}:80 masq\n" for n in range(4))
    (slow,) = (p for p in examine([mine(LDIRECTORD, GLOBALS.replace("=3", "=30") + four)]) if "one after" in p.reason)
    assert f"{3 * 30 + 2} s pass" in slow.reason


@pytest.mark.parametrize(
    ("word", "expected_ms"),
    [
        ("3", 3000),
        ("2.5", 2500),
        (".5", 500),
        ("500ms", 500),
        ("500MSEC", 500),
        ("500us", 1),
        ("1.2.3", 1200),
        (".", 0),
        ("7s", None),
        ("1min", None),
        ("-3", None),
        ("ms", None),
        ("9" * 400, 10**18),
    ],
)
def test_durations_are_read_as_by_heartbeats_library(word: str, expected_ms: int | None) -> None:
    assert milliseconds(word) == expected_ms  # all but the last as Debian's libplumb.so.2 answered


def test_heartbeat_accepts_windows_line_ends() -> None:
    assert examine([mine(HA_CF, GOOD_HA_CF.replace("\n", "\r\n"))]) == []


def test_the_same_finding_on_several_lines_is_reported_once_with_their_number() -> None:
    text = GLOBALS + SERVICE.replace('\treceive="OK"\n', "") * 3
    (found,) = examine([mine(LDIRECTORD, text)])
    assert (found.line, "(3 times, first on this line)" in found.reason) == (5, True)


def test_what_exportfs_refuses_has_no_other_findings() -> None:
    assert examine([mine(EXPORTS, "/srv/uploads 198.18.1.0/24(rw, sync)\n")]) == []


PATHS = sorted({config.path for case in CASES for config in (*case.bad, *case.good)} | {"/etc/anything"})
FRAGMENTS = sorted({line for case in CASES for config in case.bad for line in config.text.split("\n")})
TEXTS = st.one_of(
    st.text(),
    st.binary().map(lambda data: data.decode(errors="surrogateescape")),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text()), max_size=12).map("\n".join),
    st.text(alphabet="#;\\\"'{}[]()=:!-/* \t\r\n0123456789amsv$"),
)
CONFIGS = st.builds(
    Config,
    node=st.sampled_from(["lb-1", "lb-2", "web-1", "db"]),
    path=st.sampled_from(PATHS),
    text=TEXTS,
    mode=st.integers(0, 0o7777),
    source=st.sampled_from(["", "my/file"]),
)


@given(st.lists(CONFIGS, max_size=6), st.integers(0, 64))
def test_no_text_makes_it_raise(configs: list[Config], web: int) -> None:
    for finding in examine(configs, web):
        assert finding.line >= 0
        assert finding.nodes
        assert finding.reason


@pytest.mark.parametrize("path", PATHS)
@given(text=TEXTS)
def test_no_text_makes_any_kind_of_file_raise(path: str, text: str) -> None:
    lines = text.count("\n") + 1
    assert all(0 <= finding.line <= lines for finding in examine([mine(path, text)]))
