"""The short form of `scripts/fuzz shards`: its first cases, of which some failed once."""

from __future__ import annotations

from pathlib import Path

from tests.fuzzing.shards import KINDS, fuzz_shards

NUM_CASES = 250


def test_no_damaged_data_set_is_taken_for_a_sound_one(tmp_path: Path) -> None:
    """Every kind of damage, read in every way, in bounded time and memory."""
    outcomes = fuzz_shards(folder=tmp_path, keep=tmp_path / "kept", count=NUM_CASES, seed=0)
    assert outcomes.broken == []
    assert outcomes.num_cases == NUM_CASES
    seen = {outcome for _, outcome in outcomes.counts}
    assert {"refused", "noticed by verify", "harmless", "repaired"} <= seen
    # What the chance of this seed leaves out would go unnoticed.
    assert {kind for kind, _ in outcomes.counts} == set(KINDS)
