"""Every fault of the catalogue on one lab in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults import FAULTS
from tests.support.virtual_faults import has_its_effect_and_leaves_nothing, virtual_lab
from topology.lab.docker_lab import DockerLab


@pytest.fixture(scope="module")
def virtual() -> Iterator[DockerLab]:
    with virtual_lab("virtual-catalogue") as lab:
        yield lab


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_has_its_effect_and_leaves_nothing(virtual: DockerLab, name: str) -> None:
    has_its_effect_and_leaves_nothing(virtual, name)
