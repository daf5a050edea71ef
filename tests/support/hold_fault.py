"""hold_fault LAB FAULT SETTINGS LEASE_S: print ``ready``, inject the fault, print ``in``, and hold it until killed."""

from __future__ import annotations

import json
import sys

from faults import FAULTS
from harness.wait import pass_time
from topology.lab import engine, lifecycle
from topology.lab.node import DockerNode

lab = lifecycle.attach(engine.connect(), sys.argv[1])
assert lab is not None
DockerNode.lease_s = float(sys.argv[4])
fault = FAULTS[sys.argv[2]](**json.loads(sys.argv[3]))
print("ready", flush=True)
with fault.inject(lab):
    print("in", flush=True)
    pass_time(3600)
