"""Readers of files take broken input or refuse it with one sentence; none ends in a traceback.

``MONKEYWRENCH_FUZZ`` is the number of inputs (2,000 by default), ``MONKEYWRENCH_FUZZ_SEED`` another seed.
"""

from __future__ import annotations

import logging
import os
from itertools import islice
from pathlib import Path

import pytest

from tests.support.fuzz import READERS, attempt, inputs

TOTAL = int(os.environ.get("MONKEYWRENCH_FUZZ", "2000"))
SEED = int(os.environ.get("MONKEYWRENCH_FUZZ_SEED", "1"))
LONGEST_SENTENCE = 20_000
"""A sentence may repeat a word of the input, which has up to 5,000 characters."""


def share(name: str) -> int:
    return TOTAL * READERS[name].share // sum(reader.share for reader in READERS.values())


@pytest.mark.parametrize("name", READERS)
def test_broken_input_is_refused_with_a_sentence_or_taken(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "scapy")
    for number, data in enumerate(islice(inputs(name, SEED), share(name))):
        try:
            sentence = attempt(name, data, tmp_path)
        except Exception as error:
            raise AssertionError(f"input {number} of {name!r} (seed {SEED}): {data[:500]!r}") from error
        assert len(sentence) <= LONGEST_SENTENCE, f"input {number} of {name!r}"
        assert "Traceback" not in sentence


def test_inputs_follow_from_their_seed() -> None:
    for name in ("scenario", "history", "access log"):
        assert list(islice(inputs(name, 3), 20)) == list(islice(inputs(name, 3), 20))
        assert list(islice(inputs(name, 3), 20)) != list(islice(inputs(name, 4), 20))
