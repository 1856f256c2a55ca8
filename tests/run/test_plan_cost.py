"""What collections cost: proportions that must hold, whatever this machine's speed is."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.config import (
    CenterCrop,
    DecodeSpec,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    Resize,
    RunOptions,
)
from flowprep.errors import ConfigError, InputError
from flowprep.inputs.manifest import collect_videos
from flowprep.run.driver import run_extract
from flowprep.run.plan_cost import COLLECTIONS, CostEstimate, CostRow, estimate_cost
from flowprep.synthetic import action_scene, write_video

CONFIG = ExtractConfig(flow=FlowSpec("dis"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    scene = action_scene("move_left", num_frames=12, width=96, height=64, seed=0)
    for number in range(3):
        write_video(folder / f"{number}.mp4", map(scene.frame, range(12)), 25.0)
    return folder


def cost(videos: Path, config: ExtractConfig = CONFIG, **options: object) -> CostEstimate:
    return estimate_cost(collect_videos(videos), config, **options)  # type: ignore[arg-type]


def rows(estimate: CostEstimate) -> dict[str, CostRow]:
    return {row.name: row for row in estimate.rows}


def test_ucf101_has_as_many_pairs_as_published(videos: Path) -> None:
    found = rows(cost(videos, pairs_per_second_per_node=1000.0))
    ucf101 = found["UCF101"]
    # 1,600 minutes at 25 fps, less a frame of each clip.
    assert ucf101.num_pairs == pytest.approx(1600 * 60 * 25 - 13_320, rel=0.01)
    assert (ucf101.width, ucf101.height) == (320, 240)
    assert ucf101.seconds == pytest.approx(ucf101.num_pairs * (320 * 240) / (340 * 256) / 1000)
    assert ucf101.num_shards == 134
    assert found["Kinetics-400"].num_videos == 306_245
    assert (found["Kinetics-700"].width, found["Kinetics-700"].height) == (455, 256)


def test_a_crop_decides_the_stored_size(videos: Path) -> None:
    decode = DecodeSpec(resize=Resize.parse("none"), crop=CenterCrop(64, 60))
    found = rows(cost(videos, ExtractConfig(decode, FlowSpec("dis"))))
    assert (found["UCF101"].width, found["UCF101"].height) == (64, 60)
    assert found["these videos"].num_bytes > 0


def test_time_goes_with_nodes_and_workers_and_pixels(videos: Path) -> None:
    given = {"pairs_per_second_per_node": 500.0}
    one = rows(cost(videos, **given))
    four = rows(cost(videos, num_nodes=4, **given))
    small = ExtractConfig(DecodeSpec(resize=Resize.parse("short:128")), FlowSpec("dis"))
    halved = rows(cost(videos, small, **given))
    for name in ("UCF101", "Kinetics-400", "Sports-1M"):
        assert four[name].seconds == pytest.approx(one[name].seconds / 4)
        assert four[name].num_bytes == one[name].num_bytes
    assert halved["Kinetics-400"].seconds == pytest.approx(
        one["Kinetics-400"].seconds / 4, rel=0.01
    )
    measured = cost(videos, num_workers_per_node=10)
    assert measured.is_measured
    scale = measured.cost.pixels_per_pair / (340 * 256)
    assert measured.pairs_per_second_per_node == pytest.approx(
        10 * scale / measured.cost.seconds_per_pair
    )


def test_own_videos_cost_what_their_run_stores(videos: Path, tmp_path: Path) -> None:
    estimate = cost(
        videos, ExtractConfig(flow=FlowSpec("dis"), encode=EncodeSpec(videos_per_shard=2))
    )
    own = estimate.rows[0]
    report = run_extract(
        collect_videos(videos), str(tmp_path), CONFIG, RunOptions(executor="inline")
    )
    assert (own.name, own.num_videos, own.num_shards) == ("these videos", 3, 2)
    assert own.num_pairs == pytest.approx(report.num_pairs)
    assert own.num_bytes == pytest.approx(report.num_bytes, rel=0.3)


def test_mistakes_are_named(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"collection must be one of ucf101, .*, got 'ucf'"):
        cost(videos, collections=["ucf"])
    with pytest.raises(ConfigError, match="nodes must be >= 1, got 0"):
        cost(videos, num_nodes=0)
    with pytest.raises(ConfigError, match="pairs_per_second must be > 0, got -1"):
        cost(videos, pairs_per_second_per_node=-1.0)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"no video could be probed.*broken"):
        cost(tmp_path)


def test_every_collection_is_in_the_table(videos: Path) -> None:
    lines = cost(videos).summary().splitlines()
    assert [line.split()[0] for line in lines[3:]] == [c.title for c in COLLECTIONS.values()]
    assert max(map(len, lines)) <= 100
