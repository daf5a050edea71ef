"""The parts of the cluster, one per file, in the order that `status` shows them."""

from topology.model import Topology
from topology.parts.boot_scripts import BootScripts
from topology.parts.database import Database
from topology.parts.directors import Directors
from topology.parts.dns import Dns
from topology.parts.ganglia import Ganglia
from topology.parts.heartbeat import Heartbeat
from topology.parts.ldirectord import Ldirectord
from topology.parts.part import Part
from topology.parts.real_servers import RealServers
from topology.parts.variable_data import VariableData
from topology.parts.virtual_service import VirtualService
from topology.parts.web_data import WebData

PARTS: tuple[Part, ...] = (
    Dns(),
    Directors(),
    VirtualService(),
    Heartbeat(),
    Ldirectord(),
    RealServers(),
    WebData(),
    VariableData(),
    Database(),
    Ganglia(),
    BootScripts(),
)


def parts_of(topology: Topology) -> tuple[Part, ...]:
    """The parts that a topology has."""
    return tuple(part for part in PARTS if part.enabled(topology))
