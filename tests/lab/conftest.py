"""What the tests on a real lab have around them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faulty import settled


@pytest.fixture(autouse=True)
def _settled(request: pytest.FixtureRequest, _monkeywrench_audit: None) -> Iterator[None]:
    """A director that stood still for long leaves addresses away from home: the tests after this one need them there.

    It comes before the plugin looks the lab over, which finds whatever else is wrong.
    """
    yield
    if "lab" in request.fixturenames:
        settled(request.getfixturevalue("lab"))
