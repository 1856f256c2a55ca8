"""The short forms of `scripts/fuzz checkpoints` and `scripts/fuzz runs`."""

from __future__ import annotations

from pathlib import Path

from tests.fuzzing.checkpoints import fuzz_checkpoints
from tests.fuzzing.runs import fuzz_runs

NUM_CASES = 30


def test_no_forged_checkpoint_is_taken_for_a_sound_one(tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    outcomes = fuzz_checkpoints(folder=tmp_path, keep=keep, count=NUM_CASES, seed=0)
    assert outcomes.broken == []
    assert outcomes.num_cases == NUM_CASES
    assert {"refused", "equal"} <= {outcome for _, outcome in outcomes.counts}


def test_no_damaged_training_ends_in_other_weights(tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    outcomes = fuzz_runs(folder=tmp_path, keep=keep, count=NUM_CASES, seed=0)
    assert outcomes.broken == []
    assert outcomes.num_cases == NUM_CASES
    assert {"refused", "equal"} <= {outcome for _, outcome in outcomes.counts}
