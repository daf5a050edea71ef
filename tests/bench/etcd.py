"""Porcupine's own etcd logs: ``python -m tests.bench.etcd FOLDER``, a clone of github.com/anishathalye/porcupine.

Its test says of each log whether it is linearizable. Shows how many are judged so, and how long that takes; beside it,
run ``go test -run Etcd`` there. The logs were recorded by Jepsen and are not part of this repository.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

from harness import foreign
from harness.verdict import Outcome


def main(folder: Path) -> int:
    """Judge all logs; -> how many are judged otherwise than Porcupine's test says."""
    expected = re.findall(r"checkJepsen\(t, (\d+), (true|false)\)", (folder / "porcupine_test.go").read_text())
    settings, wrong = foreign.settings(["initial=null"]), 0
    began = time.process_time()
    for number, right in expected:
        path = folder / "test_data" / "jepsen" / f"etcd_{int(number):03d}.log"
        outcome = foreign.check(foreign.read(path), settings).outcome
        if outcome is not (Outcome.VALID if right == "true" else Outcome.INVALID):
            wrong += 1
            print(f"{path.name}: {outcome}, and Porcupine says {right}")
    print(f"{len(expected)} logs, {wrong} of them judged otherwise, {time.process_time() - began:.2f} CPU s")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1])) else 0)
