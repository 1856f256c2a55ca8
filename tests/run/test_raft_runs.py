"""RAFT's weights on their way to workers, which may be on machines without the file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.config import Resize
from flowprep.flow.parameters import RAFTParameters
from flowprep.synthetic import write_video
from tests import torchvision_hook
from tests.raft import rgb_frames, save_weights


@pytest.mark.parametrize("executor", ["process", "ray"])
def test_workers_get_the_weights_of_the_driver(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    shutil.copy(torchvision_hook.__file__, hook / "sitecustomize.py")
    path = [str(hook), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    options = RunOptions(executor=executor)  # type: ignore[arg-type]
    if executor == "ray":
        # As on another machine: the cache folder of the driver is not there.
        env = {"env_vars": {"FLOWPREP_CACHE_DIR": str(tmp_path / "empty")}}
        options = RunOptions(executor="ray", num_workers=1, runtime_env=json.dumps(env))
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / f"{name}.mp4", rgb_frames(3, 144, 128), 25.0)
    weights = save_weights(tmp_path / "weights.pth")
    parameters = RAFTParameters("raft_small", str(weights), 1)
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")),
        FlowSpec("raft", parameters),
        EncodeSpec(jpeg_quality=100),
    )
    found = {}
    for name, how in (("out", options), ("alone", RunOptions(executor="inline"))):
        report = flowprep.extract(
            tmp_path / "videos", tmp_path / name, config, executor=how.executor, options=how
        )
        assert (report.exit_code, report.num_failed) == (0, 0)
        found[name] = flowprep.open_dataset(tmp_path / name).quantized("b", 0, 2).astype(int)
    # The weights were in no file that the workers could have read.
    assert not (tmp_path / "empty" / "weights").exists()
    # A level, because threads may add up in another order.
    assert np.abs(found["out"] - found["alone"]).max() <= 1
    assert found["alone"].std() > 1
