"""Weights are kept by their hash: for this process, for later ones, and where they are sent."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowprep.errors import ConfigError, MissingExtraError, WeightsError
from flowprep.flow import create_estimator, weight_files
from flowprep.flow.kernel import cache_folder
from flowprep.flow.parameters import RAFTParameters, TVL1Parameters

CONTENT = b"weights" * 1000
ID = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FLOWPREP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(weight_files, "_held", {})
    cache_folder.cache_clear()
    yield
    monkeypatch.undo()
    cache_folder.cache_clear()


def read_elsewhere() -> subprocess.CompletedProcess[str]:
    """Reads the weights in a process of its own."""
    code = f"from flowprep.flow.weight_files import read; print(len(read({ID!r})))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_kept_weights_are_there_for_later_processes(tmp_path: Path) -> None:
    assert weight_files.keep(CONTENT) == ID
    assert weight_files.read(ID) == CONTENT
    assert read_elsewhere().stdout.split() == [str(len(CONTENT))]
    # What is damaged there is not taken, and the next who keeps it mends it.
    file = tmp_path / "weights" / ID.removeprefix("sha256:")
    file.write_bytes(CONTENT[:-1] + b"!")
    done = read_elsewhere()
    assert done.returncode != 0
    assert f"the weights {ID} are not on this machine; name their file" in done.stderr
    weight_files.keep(CONTENT)
    assert read_elsewhere().returncode == 0


def test_sent_weights_stay_in_the_process_and_are_checked(tmp_path: Path) -> None:
    assert not weight_files.is_held(ID)
    with pytest.raises(WeightsError, match=f"must be {ID}, got sha256:"):
        weight_files.hold(ID, CONTENT[1:])
    weight_files.hold(ID, CONTENT)
    assert weight_files.is_held(ID)
    assert weight_files.read(ID) == CONTENT
    assert not (tmp_path / "weights").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_to_stops_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert weight_files.read(weight_files.keep(CONTENT)) == CONTENT
    finally:
        tmp_path.chmod(0o700)


def test_weights_that_are_nowhere_are_an_error_with_a_remedy() -> None:
    parameters = RAFTParameters(raft_weights=ID)
    assert parameters.weights_id == ID
    assert parameters.resolved() is parameters
    with pytest.raises(WeightsError, match="are not on this machine; name their file"):
        weight_files.read(ID)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"raft_model": "raft"}, "raft_model must be raft_large or raft_small, got raft"),
        ({"raft_weights": ""}, "raft_weights must be a file or a name, got ''"),
        ({"num_flow_updates": 0}, "num_flow_updates must be >= 1, got 0"),
        ({"num_flow_updates": 1.5}, "num_flow_updates must be an integer, got 1.5"),
    ],
)
def test_parameters_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RAFTParameters(**options)
    assert str(caught.value) == message


def test_an_algorithm_without_weights_has_none_to_resolve() -> None:
    parameters = TVL1Parameters()
    assert parameters.resolved() is parameters
    assert parameters.weights_id is None


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="it is installed")
def test_without_torchvision_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError) as caught:
        create_estimator("raft")
    assert str(caught.value).startswith("algorithm raft needs torch")
    assert str(caught.value).endswith("cannot be imported; run `pip install 'flowprep[raft]'`")
