"""The faults there are, by name. To add one: a class with settings and ``inject``, and one line here."""

from collections.abc import Callable, Mapping

from faults.node import Freeze, PowerOff
from harness.protocols import Fault

__all__ = ["FAULTS"]

FAULTS: Mapping[str, Callable[..., Fault]] = {
    "node.freeze": Freeze,
    "node.power-off": PowerOff,
}
