"""ldirectord's configuration: settings that ldirectord refuses, or accepts with an unexpected effect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.formats import haresources
from harness.formats.ldirectord_cf import LdirectordCf, Real, Service, Setting, parse
from harness.formats.lines import nearest, quoted
from topology.lint import sysctl
from topology.lint.model import SERVICES, ClusterFiles, Config, Hit, Remark, cited, others, per_node

OWN = "/etc/ha.d/ldirectord.cf"
"""The file that the lab's service starts ldirectord with (topology/images/director/sv/ldirectord/run)."""
DEFAULT_INTERVAL_S = 10
DEFAULT_CHECK_S = 5
DEFAULT_NEGOTIATE_S = 30
"""set_defaults of ldirectord 4.12; the two timeouts are also defaults for each other (ld_setup)."""
NOTICE_LIMIT_S = 60
"""A failure that can go unnoticed for longer is reported. A judgement of ours, not a limit of ldirectord."""

SQL = frozenset({"mysql", "oracle", "pgsql"})
"""All go through check_sql, which sets no alarm."""
RECEIVES = frozenset({"dns", "ftp", "http", "http_proxy", "https", "ldap", "ldaps", "simpletcp"})
"""The checks that compare the answer with ``receive``."""
FETCHES = frozenset({"http", "http_proxy", "https"})
SCHEDULERS = frozenset({"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"})
"""ipvsadm(8); ldirectord takes any lower case word."""
BLIND = {
    "on": "no real server is ever checked, and a dead one stays in service. Use negotiate",
    "off": "no real server is ever put into service. Use negotiate",
    "connect": "a real server whose kernel accepts connections stays in service, whatever it answers. Use negotiate",
    "ping": "a real server whose kernel answers pings stays in service, even without a web server. Use negotiate",
}
"""Check types that do not look at content."""


def quiescent_unset(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: the manual and the code disagree."""
    covered = cf.services and all(service.get("quiescent") for service in cf.services)
    if cf.get("quiescent") is None and not covered:
        yield (
            0,
            "quiescent is not set: the default is yes in the manual but no in the code, so a failed real server is "
            "deleted instead of getting weight 0. Set it to yes or no [ldirectord(8), set_defaults of ldirectord]",
        )


def checkinterval_unset(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: 10 s between the rounds of checks."""
    covered = cf.forks and cf.services and all(service.get("checkinterval") for service in cf.services)
    if cf.get("checkinterval") is None and not covered:
        yield (
            0,
            f"checkinterval is not set: {DEFAULT_INTERVAL_S} s pass between rounds of checks, and clients still go to "
            "a dead real server in that time. Set the number of seconds [ldirectord(8)]",
        )


def timeouts_unset(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: half a minute for a real server that hangs."""
    names = ("checktimeout", "negotiatetimeout")
    for service in cf.services:
        timed = service.negotiates and service.service not in SQL | {"none"}
        if timed and not any(cf.of(service, name) for name in names):
            yield (
                service.line,
                f"Neither negotiatetimeout nor checktimeout is set: ldirectord notices a real server that hangs after "
                f"{DEFAULT_NEGOTIATE_S} s, and all other checks wait for that. Set one of them [ldirectord(8)]",
            )


def blind_checktype(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: no check looks at what the real servers answer."""
    for service in cf.services:
        if service.checktype in BLIND:
            setting = service.get("checktype")
            yield (
                setting.line if setting else service.line,
                f"checktype={service.checktype}: {BLIND[service.checktype]} [ldirectord(8)]",
            )
        elif service.negotiates and service.service == "none":
            setting = service.get("service")
            yield (
                setting.line if setting else service.line,
                f"The service is none, the default for {'a firewall mark' if service.fwmark else 'this port'}: no real "
                "server is checked, and a dead one stays in service. Set service [ldirectord(8), check_none of "
                "ldirectord]",
            )


def _bare(service: Service, what: str) -> list[Real]:
    """The real servers without a request or receive of their own."""
    return [real for real in service.reals if not (real.has_request if what == "request" else real.has_receive)]


def no_receive(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: any answer will do."""
    for service in cf.services:
        asked = service.negotiates and service.service in RECEIVES
        if asked and service.get("receive") is None and (_bare(service, "receive") or not (service.reals or cf.stray)):
            any_page = "any page with a 2xx status, even an error page, keeps a real server in service"
            what = any_page if service.service in FETCHES else "any answer keeps a real server in service"
            if service.service == "dns":  # check_dns wants an answer that is not empty and matches
                what = "the dns check never succeeds, and no real server is ever put into service"
            yield service.line, f"There is no receive to compare the answer with: {what}. Set receive [ldirectord(8)]"


def stray_lines(cf: LdirectordCf) -> Iterator[Remark]:
    """Refused, with an unknown command for a reason: tutorials whose indentation got lost."""
    if cf.stray:
        yield (
            cf.stray,
            "This line and those like it belong to the virtual service above: indent them by 4 blanks or a tab, with "
            "no empty line between [ldirectord(8)]",
        )


def external_without_command(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: the default command is /bin/true."""
    for service in cf.services:
        setting = service.get("checktype")
        if setting and service.checktype.startswith("external") and service.get("checkcommand") is None:
            yield (
                setting.line,
                f"checktype={service.checktype} without checkcommand runs /bin/true: a dead real server is never taken "
                "out of service. Set checkcommand [read_config of ldirectord 4.12]",
            )


TLS = {443: "https", 636: "ldaps", 993: "imaps", 995: "pops"}
HTTP = 80
PLAIN = {"http": "https", "ldap": "ldaps", "imap": "imaps", "pop": "pops"}


def plain_to_tls(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: the check speaks a protocol without TLS to a port with TLS."""
    for service in cf.services:
        checkport, kind = service.get("checkport"), PLAIN.get(service.service, "")
        port = checkport.number if checkport else next((real.port for real in service.reals), 0) or service.port
        setting = checkport or service.get("service")
        if service.negotiates and setting and port and TLS.get(port) == kind != "":
            yield (
                setting.line,
                f"The check speaks {service.service} without TLS to port {port}, which answers with an error: no "
                f"real server is ever put into service. Use service={kind}, or a checkport without TLS "
                "[ld_setup of ldirectord 4.12]",
            )
        elif service.negotiates and setting and service.service == "https" and port == HTTP:
            yield (
                setting.line,
                "The check speaks https to port 80, which does not speak TLS: no real server is ever put into service. "
                "Use service=http, or a checkport with TLS [ld_setup of ldirectord 4.12]",
            )


def fallback_port(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: only masq can change a port, for a fallback too."""
    for service in cf.services:
        for setting in filter(None, [cf.of(service, "fallback"), cf.of(service, "fallback6")]):
            found = re.match(r"\S+?:([0-9]+)\s*(\w*)", setting.value)
            masq = found and (found[2] == "masq" or setting.value.startswith(("127.", "localhost")))
            if found and service.port and int(found[1][:6]) != service.port and not masq:
                yield (
                    setting.line,
                    f"Forwarding {found[2] or 'gate'} cannot rewrite ports: clients of port {service.port} reach port "
                    f"{service.port} of the fallback, not {found[1][:6]}. Use the same port, or masq [ldirectord(8)]",
                )


def not_supervised(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the service of the lab starts one ldirectord after another."""
    services = {line for each in cluster.on(config.node, SERVICES) for line in each.text.split()}
    setting = parse(config.text).get("supervised")
    if config.path != OWN or "ldirectord" not in services or (setting and setting.value == "yes"):
        return
    yield Hit(
        config,
        setting.line if setting else 0,
        "supervised=yes is missing: the lab's runit starts ldirectord in the foreground. Without it ldirectord goes "
        "into the background, runit starts another one every second, and process faults miss the daemon. Add it at the "
        "top [ld_init of ldirectord 4.12]",
    )


def not_of_the_lab(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a file of another cluster, whose addresses nobody here has."""
    cf = parse(config.text)
    used = config.path == OWN or any(
        name == config.path.rpartition("/")[2]
        for each in cluster.on(config.node, haresources.PATH)
        for group in haresources.parse(each.text)
        for name in group.ldirectord_files
    )
    if cluster.lab is None or not used:
        return
    groups = [group for each in cluster.on(config.node, haresources.PATH) for group in haresources.parse(each.text)]
    taken = {address for group in groups for address in group.addresses} | set(cluster.lab.vips)
    served = {service.address.partition(":")[0] for service in cf.services}
    for service in cf.services:
        vip = service.address.partition(":")[0]
        if _is_address(vip) and vip not in taken:
            why = f"{vip} is no VIP of the topology and not in haresources: no director has it, so nobody is served"
            yield Hit(config, service.line, f"{why}. Use the lab's VIPs, or add it to [[vips]].")
        for real in service.reals:
            if _is_address(real.server) and real.server not in cluster.lab.addresses | {"127.0.0.1"}:
                yield Hit(
                    config,
                    real.line,
                    f"{real.server} is no node of the lab, so its check always fails. Use the addresses of the web "
                    "nodes.",
                )
    if config.path == OWN and not any(service.fwmark for service in cf.services):
        for vip in sorted(set(cluster.lab.vips) - served):
            yield Hit(config, 0, f"The topology's VIP {vip} is served by no virtual service. Add one for it.")


def _is_address(word: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+){3}", word) is not None


def no_request(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: the check fetches the front page."""
    for service in cf.services:
        asked = service.negotiates and service.service in FETCHES
        if asked and service.get("request") is None and (_bare(service, "request") or not (service.reals or cf.stray)):
            yield (
                service.line,
                "There is no request, so the check fetches the front page: it may come from a cache, or redirect to a "
                "healthy peer, which counts as up. Request a page made for the check [ldirectord(8)]",
            )


def head_with_receive(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: an answer to HEAD has nothing that could match."""
    for service in cf.services:
        method, receive = service.get("httpmethod"), service.get("receive")
        if method and method.word.upper() == "HEAD" and receive and service.service in FETCHES:
            yield (
                method.line,
                "httpmethod=HEAD returns no content: receive never matches, and no real server is in service. Use GET "
                "[ldirectord(8)]",
            )


def sql_check(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: one hanging database stops all checks; an incomplete check never lets a server in."""
    for service in cf.services:
        if not service.negotiates or service.service not in SQL:
            continue
        setting = service.get("service")
        line = setting.line if setting else service.line
        yield (
            line,
            f"The {service.service} check has no timeout: while one database hangs, no real server is checked. "
            "Use checktype=external, which checktimeout limits [check_sql of ldirectord]",
        )
        missing = [name for name in ("login", "request") if service.get(name) is None]
        if missing and (missing != ["request"] or _bare(service, "request") or not service.reals):
            yield (
                line,
                f"The {service.service} check lacks {' and '.join(missing)}: no real server is ever put into service. "
                "Add it [check_sql of ldirectord]",
            )


def port_cannot_change(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: the real server receives packets for the virtual service's port."""
    for service in cf.services:
        for real in service.reals:
            if service.port and real.port and real.forward != "masq" and real.port != service.port:
                yield (
                    real.line,
                    f"Forwarding {real.forward} cannot rewrite ports: clients of port {service.port} reach port "
                    f"{service.port} of this real server, not {real.port}. Use the same port, or masq [ldirectord(8)]",
                )


def mixed_forwarding(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: real servers of one service need different network setups."""
    for service in cf.services:
        first = service.reals[0].forward if service.reals else ""
        for real in service.reals:
            if real.forward != first:
                yield (
                    real.line,
                    f"This real server uses {real.forward}, others of the same virtual service use {first}: they need "
                    "a different setup of the VIP and of the return route, so replies of one kind get lost. Use one "
                    "method for all.",
                )
                break


def address_without_port(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: ldirectord reads the address as a firewall mark."""
    for service in cf.services:
        if service.fwmark and "." in service.address:
            mark = service.address.partition(".")[0]
            yield (
                service.line,
                f"virtual={service.address[:40]} has no port: ldirectord reads it as firewall mark {mark[:10]}, and "
                "the address is not served. Write address:port [read_config of ldirectord]",
            )


def unknown_scheduler(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: ipvsadm fails, and the virtual service does not exist."""
    for service in cf.services:
        scheduler = service.get("scheduler")
        if scheduler and scheduler.word not in SCHEDULERS:
            yield (
                scheduler.line,
                f"unknown scheduler {quoted(scheduler.word)}: ldirectord accepts any word, then ipvsadm fails and "
                f"the virtual service does not exist{nearest(scheduler.word, SCHEDULERS)} [ipvsadm(8)]",
            )


def _number(settings: Sequence[Setting | None], default: int) -> int:
    return next((setting.number for setting in settings if setting), default)


def hung_check_s(cf: LdirectordCf, service: Service) -> int:
    """How long one check of a hanging real server takes; 0 where nothing is checked, or without a limit."""
    check, negotiate = service.get("checktimeout"), service.get("negotiatetimeout")
    all_check, all_negotiate = cf.get("checktimeout"), cf.get("negotiatetimeout")
    if service.negotiates:
        unlimited = service.service in SQL | {"none"}
        return 0 if unlimited else _number([negotiate, check, all_negotiate, all_check], DEFAULT_NEGOTIATE_S)
    if service.checktype in {"on", "off"}:
        return 0
    attempts = _number([cf.of(service, "checkcount")], 1) if service.checktype == "ping" else 1
    return attempts * _number([check, negotiate, all_check, all_negotiate], DEFAULT_CHECK_S)


def interval_s(cf: LdirectordCf, service: Service) -> int:
    """The pause between rounds; a virtual service's own counts only with fork=yes."""
    return _number([service.get("checkinterval") if cf.forks else None, cf.get("checkinterval")], DEFAULT_INTERVAL_S)


def _checks(cf: LdirectordCf, services: Sequence[Service]) -> list[int]:
    """The seconds that each check of a round takes if all real servers hang; a check is not repeated in a round."""
    seen: dict[object, tuple[int, int]] = {}
    for service in services:
        how = [
            (s.name, s.value) for s in service.settings if s.name in {"checkport", "receive", "request", "virtualhost"}
        ]
        for real in service.reals:
            key = (service.checktype, service.service, str(how), real.text)
            seen[key] = (hung_check_s(cf, service), real.count)
    return [check_s for check_s, count in seen.values() for _ in range(min(count, 1000))]


def slow_rounds(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: checks run one after another, so hanging real servers delay the check of the next."""
    cf = parse(config.text)
    rounds = [[service] for service in cf.services] if cf.forks else [list(cf.services)]
    worst_s = 0
    for services in rounds:
        checks = _checks(cf, services)
        # a real server can have an address for each VIP: all checks of one machine hang together
        machines = min(max(1, cluster.web), len(checks))
        if services and machines:
            pause_s = interval_s(cf, services[0])
            worst_s = max(worst_s, round(sum(checks) * (machines - 1) / machines) + pause_s)
    if worst_s > NOTICE_LIMIT_S:
        fork = cf.get("fork")
        how = "of a virtual service" if cf.forks else "of all virtual services, as fork is not yes,"
        better = "Shorter timeouts help" if cf.forks else "fork=yes and shorter timeouts help"
        yield Hit(
            config,
            fork.line if fork else 0,
            f"The checks {how} run one after another: when all real servers but one hang, {worst_s} s pass until the "
            f"failure of the last is noticed. {better} [ldirectord(8)]",
        )


def slow_notice(cf: LdirectordCf) -> Iterator[Remark]:
    """Accepted: many consecutive failures before a real server is taken out of service."""
    for service in cf.services:
        failures = cf.of(service, "failurecount")
        if failures and failures.number > 1:
            notice_s = failures.number * (interval_s(cf, service) + hung_check_s(cf, service))
            if notice_s > NOTICE_LIMIT_S:
                yield (
                    failures.line,
                    f"failurecount={failures.number}: a real server that hangs gets clients for up to {notice_s} s, "
                    "because every failure takes an interval and a timeout. Lower one of the three [ldirectord(8)]",
                )


def expiry(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: sysctls that do not fit quiescent, for the connections of a failed real server."""
    cf = parse(config.text)
    template, template_files = sysctl.value(cluster, config.node, sysctl.EXPIRE_TEMPLATE)
    nodest, nodest_files = sysctl.value(cluster, config.node, sysctl.EXPIRE_NODEST)
    for service in cf.services:
        quiescent, persistent = cf.of(service, "quiescent"), service.get("persistent")
        stays = bool(quiescent and quiescent.value == "yes")
        if stays and persistent and template in {None, "0"}:
            yield Hit(
                config,
                persistent.line,
                "quiescent=yes with persistent: a failed real server with weight 0 still gets new connections of its "
                f"earlier clients. Set the sysctl {sysctl.EXPIRE_TEMPLATE} to 1 [ldirectord(8)]",
                template_files,
            )
        if not stays and nodest in {None, "0"}:
            yield Hit(
                config,
                quiescent.line if quiescent else 0,
                "Without quiescent a failed real server is deleted: packets of its connections are dropped, and "
                f"clients wait. Set the sysctl {sysctl.EXPIRE_NODEST} to 1 to expire them [ipvs-sysctl.rst of Linux]",
                nodest_files,
            )


def answers_arp(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: with gate and ipip a real server has the VIP too, and answers ARP for it by default."""
    direct = [real for service in parse(config.text).services for real in service.reals if real.forward != "masq"]
    for node in cluster.real_servers() if direct else ():
        missing = [name for name, least in sysctl.ARP.items() if not sysctl.arp(cluster, node, name, least)]
        unset = [name for name in missing if sysctl.value(cluster, node, f"net.ipv4.conf.all.{name}")[0] is None]
        if unset:
            yield Hit(
                config,
                direct[0].line,
                f"Forwarding {direct[0].forward} needs the VIP on every real server, but no sysctl file there sets "
                f"{' or '.join(unset)}, which means 0: real servers {' and '.join(sysctl.ARP_DOES[n] for n in unset)}. "
                "Set arp_ignore=1 and arp_announce=2 [ip-sysctl.rst of Linux]",
                sysctl.files(cluster, node),
                (node,),
            )


def files_differ(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a takeover changes the service."""
    for path in sorted({config.path for config in configs}):
        same = [config for config in configs if config.path == path and cluster.is_director(config.node)]
        meanings = {config: repr(parse(config.text).meaning()) for config in same}
        if len(set(meanings.values())) > 1:
            here = cited(same)
            counts = per_node((config.node, f"{_real_count(config)} real servers") for config in same)
            yield Hit(
                here,
                0,
                f"{path} differs between the directors ({counts}): after a takeover the same VIP is served "
                "differently. Use the same file on both.",
                others(here, same),
            )


def _real_count(config: Config) -> int:
    return sum(real.count for service in parse(config.text).services for real in service.reals)
