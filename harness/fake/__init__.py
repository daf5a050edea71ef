"""A lab in memory, as public as the real one: for tests of scenarios, checks and plugins on machines without Docker.

Its time is virtual. It passes only while the thread that made the lab sleeps on ``lab.clock`` (or boots a node), and
then at once: a run of a minute takes a second, and has the same result every time.

>>> lab = FakeLab()
>>> lab.status().healthy
True
"""

from harness.fake.lab import Defect, FakeCapture, FakeLab
from harness.fake.node import FakeLease, FakeNode
from harness.fake.time import FakeFeed, FakeStream, FakeTime

__all__ = ["Defect", "FakeCapture", "FakeFeed", "FakeLab", "FakeLease", "FakeNode", "FakeStream", "FakeTime"]
