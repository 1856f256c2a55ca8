"""The short form of `scripts/fuzz videos`; fixed by its seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import DATA
from tests.fuzzing.seeds import make_seeds
from tests.fuzzing.videos import damaged, fuzz_videos

NUM_CASES = 60

pytestmark = pytest.mark.timeout(400)


def test_no_damaged_video_disturbs_a_run_or_is_stored_wrongly(tmp_path: Path, ffmpeg: str) -> None:
    outcomes = fuzz_videos(
        ffmpeg=ffmpeg,
        data=DATA if DATA.is_dir() else None,
        folder=tmp_path,
        keep=tmp_path / "kept",
        count=NUM_CASES,
        seed=1,
        batch_size=NUM_CASES,
    )
    assert outcomes.broken == []
    assert outcomes.num_cases == NUM_CASES
    seen = {outcome for _, outcome in outcomes.counts}
    assert {"stored", "unreadable", "damaged"} <= seen


def test_cases_follow_from_seed_and_number_alone(tmp_path: Path, ffmpeg: str) -> None:
    first = make_seeds(tmp_path / "first", ffmpeg, None)
    again = make_seeds(tmp_path / "again", ffmpeg, None)
    assert [damaged(first, 3, n) for n in range(50)] == [damaged(again, 3, n) for n in range(50)]
    assert damaged(first, 3, 7) != damaged(first, 4, 7)
