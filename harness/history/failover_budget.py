"""How long a takeover, a handover and a health check may take, from the recorded facts of the cluster. Pure; all in ms.

A peer is declared dead one deadtime after its last packet, noticed within one keepalive (heartbeat 3.0.6,
``check_for_timeouts``). Then the resource scripts of haresources run one after another (its ``ResourceManager``).

ldirectord checks all real servers of all its virtual services one after another, then pauses for ``checkinterval``
(ldirectord 4.12, ``ld_main``). One that hangs costs its timeout in each virtual service, and so delays all others.
"""

from harness.records import Cluster


def takeover_ms(cluster: Cluster) -> float:
    """From the owner's failure until its peer has started all resources of the address."""
    silence = cluster.deadtime_ms + cluster.keepalive_ms
    return silence + cluster.resources_per_vip * cluster.resource_start_ms


def handover_ms(cluster: Cluster) -> float:
    """From the release of an address until the other director has started all its resources.

    One more resource than there are, because the director that gives the group away stops the rest of it before the
    other one may start (heartbeat's standby).
    """
    return (cluster.resources_per_vip + 1) * cluster.resource_start_ms


def notice_ms(cluster: Cluster, failed: int = 1) -> float:
    """From the failure of a real server until a director takes it out, while ``failed`` real servers do not answer."""
    return cluster.failure_count * _between_checks_ms(cluster, failed)


def return_ms(cluster: Cluster, failed: int = 1) -> float:
    """From the first answer of a real server until a director puts it back: the next check."""
    return _between_checks_ms(cluster, failed)


def _between_checks_ms(cluster: Cluster, failed: int) -> float:
    # checkcount is for pings only (ldirectord(8))
    tries = cluster.check_count if cluster.checktype == "ping" else 1
    return cluster.check_interval_ms + failed * len(cluster.vips) * tries * cluster.check_timeout_ms
