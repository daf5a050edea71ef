"""How long a virtual IP may be without an owner, from the cluster's own files and the speed of its machines. Pure.

A peer is declared dead one deadtime after its last packet, noticed within one keepalive (heartbeat 3.0.6,
``check_for_timeouts``). Then the resource scripts of haresources run one after another (its ``ResourceManager``).
"""

from harness.protocols import Cluster


def takeover_ms(cluster: Cluster) -> float:
    """From the death of the owner until its peer has started all resources of the address."""
    silence = cluster.deadtime_ms + cluster.keepalive_ms
    return silence + cluster.resources_per_vip * cluster.resource_start_ms


def handover_ms(cluster: Cluster) -> float:
    """From the release of an address until the other director has started all its resources.

    One more than there are, because the one that gives them away stops the rest of the group before the other may
    start (heartbeat's standby).
    """
    return (cluster.resources_per_vip + 1) * cluster.resource_start_ms
