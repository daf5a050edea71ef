"""What the nodes' own programs print, read as complaints; the outputs are those of Debian 12's programs."""

from __future__ import annotations

import json

from topology import daemons
from topology.daemons import inside
from topology.daemons.inside import Complaint
from topology.lint.model import Config, LintFinding

LB = {
    Config("lb-1", "/etc/ha.d/ha.cf", "node lb-1", 0o644, "my/ha.cf"): b"node lb-1",
    Config("lb-1", "/etc/ha.d/ldirectord.cf", "", 0o644, ""): b"",
}
WEB = {Config("web-1", "/etc/apache2/apache2.conf", "x", 0o644, ""): b"x"}


def test_nodes_with_the_same_files_are_asked_once_but_heartbeat_on_each_director() -> None:
    nodes = [("lb-1", "director", (), LB), ("lb-2", "director", (), LB), ("web-1", "web", (), WEB)]
    asked = daemons.questions([*nodes, ("web-2", "web", (), WEB), ("client", "client", (), {})])
    assert [question.nodes for question in asked] == [("lb-1",), ("lb-2",), ("web-1", "web-2")]
    assert json.loads(asked[0].text)["programs"] == {
        "heartbeat": ["/etc/ha.d/ha.cf"],
        "ldirectord": ["/etc/ha.d/ldirectord.cf"],
    }


def test_a_complaint_is_a_finding_about_the_users_file() -> None:
    (question,) = daemons.questions([("lb-1", "director", (), LB)])
    (found,) = daemons.findings(question, [Complaint("heartbeat", "/etc/ha.d/ha.cf", 3, "Illegal directive [x]")])
    assert (found.file, found.line, found.nodes) == ("my/ha.cf", 3, ("lb-1",))
    assert found.reason == "heartbeat refuses to start: Illegal directive [x]"


def test_ldirectord_names_a_line() -> None:
    text = "Error [8] reading file /etc/ha.d/x.cf at line 4: Unknown command foo\n"
    assert inside.ldirectord_refusal(text) == (4, "Unknown command foo")
    assert inside.ldirectord_refusal("ldirectord is stopped for /etc/ha.d/x.cf\n") is None


def test_a_refused_line_is_counted_but_a_virtual_service_is_not() -> None:
    lines = ["virtual=a:80", "\tservice=kube", "virtual=a:80", "\tservice=kube"]
    assert inside.same_lines(lines, 2) == [2, 4]
    assert inside.same_lines(lines, 3) == [3]
    assert inside.body_of(lines, 3) == [4]
    assert inside.body_of(["virtual=a:80", "real=b:80 masq", "service=http", "fork=yes"], 2) == [3, 4]


def test_heartbeats_errors_are_said_once_and_without_what_follows_from_them() -> None:
    text = """\
heartbeat: invalid baudrate [1] specified.
Dec 01 lb-1 heartbeat: [5]: ERROR: glib: mcast [eth1] missing loop
Dec 01 lb-1 heartbeat: [5]: ERROR: Heartbeat not started: configuration error.
Dec 01 lb-1 heartbeat: [5]: ERROR: glib: mcast [eth1] missing loop
"""
    assert inside.errors(text) == ["invalid baudrate [1] specified.", "mcast [eth1] missing loop"]


def test_a_secret_of_authkeys_is_never_repeated() -> None:
    text = "ERROR: Auth line [topsecret] is invalid.\nERROR: Authentication configuration error.\n"
    (found,) = inside.about_authkeys(text, "auth 1\ntopsecret\n")
    assert (found.path, found.message) == ("/etc/ha.d/authkeys", "Auth line [...] is invalid.")


def test_resources_without_a_script() -> None:
    text = "lb-1 IPaddr2::192.0.2.1 \\\n  192.0.2.2 nginx # apache2\nlb-2 nginx\n"
    found = list(inside.resources(text, lambda name: name == "IPaddr2"))
    assert [(each.line, "no script nginx" in each.message) for each in found] == [(1, True)]


def test_apache_names_file_and_line() -> None:
    text = "AH00558: name\nAH00526: Syntax error on line 3 of /etc/apache2/x.conf:\nInvalid command 'Foo'\n"
    assert list(inside.apache_errors(text)) == [Complaint("apache2", "/etc/apache2/x.conf", 3, "Invalid command 'Foo'")]


def test_mariadb_names_an_option() -> None:
    files = {"/etc/mysql/a.cnf": "[mysqld]\nfoo-bar = 3\n"}
    (found,) = inside.mariadb_errors("2026 0 [ERROR] mariadbd: unknown variable 'foo_bar=3'\n", files)
    assert (found.path, found.line) == ("/etc/mysql/a.cnf", 2)
    (found,) = inside.mariadb_errors("error: Found option without preceding group in config file: /x at line: 1\n", {})
    assert (found.path, found.line) == ("/x", 1)


def test_exportfs_and_shells_name_a_line() -> None:
    (found,) = inside.exportfs_errors("exportfs: /etc/exports:1: syntax error: bad option list\n")
    assert (found.line, found.message) == (1, "syntax error: bad option list")
    assert list(inside.exportfs_errors("exportfs: Failed to stat /srv/x: No such file or directory\n")) == []
    for shell, said in (("sh", "/x.sh: 2: Syntax error: end"), ("bash", "/x.sh: line 2: syntax error: end")):
        assert [each.line for each in inside.shell_errors("/x.sh", shell, said)] == [2]


def test_keepalived_names_a_line() -> None:
    said = "(/etc/keepalived/keepalived.conf: Line 4) Unknown keyword 'virtaul_server'\n"
    assert [each.line for each in inside.keepalived_errors("/etc/keepalived/keepalived.conf", said)] == [4]


def test_a_bad_line_of_haresources_is_found_by_its_word() -> None:
    text = "ERROR: Bad nodename in /etc/ha.d//haresources [IPaddr2::192.0.2.1]\n"
    (found,) = inside.about_haresources(text, "lb-1 \\\r\nIPaddr2::192.0.2.1\n")
    assert (found.path, found.line) == ("/etc/ha.d/haresources", 2)


def test_an_error_about_two_times_names_the_line_of_one() -> None:
    lines = ["keepalive 500ms", "deadtime 900ms", "initdead 10", "node alpha"]
    assert inside.line_about("ERROR: Dead time [900] is too small compared to keeplive [500]", lines) == 2
    assert inside.line_about("ERROR: Initial dead time [1] is smaller than deadtime [2]", lines) == 3
    assert inside.line_about("ERROR: Current node [lb-1] not in configuration!", lines) == 4
    assert inside.line_about("ERROR: No heartbeat media defined", lines) == 0


def test_gmond_names_a_line_or_a_word() -> None:
    assert inside.gmond_error("/g", "/g:1: no such option 'hos'\nParse error for '/g'\n", "").line == 1
    found = inside.gmond_error(
        "/g", "no such option 'nonsense'\nParse error for '/g'\n", "globals {\n nonsense = 1\n}\n"
    )
    assert (found.line, found.message) == (2, "no such option 'nonsense'")


def test_the_patterns_of_virtual_services_and_real_servers_are_found() -> None:
    text = 'virtual=a:80\n\treceive="O(K"\n\treal=b:80 masq 1 "x", "K)"\n#\treceive="no"\n'
    assert inside.patterns(text) == {2: "O(K", 3: "K)"}


def test_the_same_complaint_on_several_nodes_and_lines_is_reported_once() -> None:
    found = [LintFinding("my/x", line, (node,), "why") for node in ("lb-1", "lb-2") for line in (7, 4)]
    assert daemons.merged([*found, LintFinding("my/x", 9, ("lb-1",), "else")]) == [
        LintFinding("my/x", 4, ("lb-1", "lb-2"), "why (2 times, first on this line)"),
        LintFinding("my/x", 9, ("lb-1",), "else"),
    ]
