"""Which class computes an algorithm on a device, and what is stored of it."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from flowprep.errors import ConfigError
from flowprep.flow import create_estimator, estimators
from flowprep.flow.devices import Device, cuda_state, why_no_cuda
from flowprep.flow.estimators import (
    resolve_device,
)
from flowprep.synthetic import action_scene
from tests.flow.test_devices import WORKING


@pytest.fixture
def _no_gpu() -> None:
    if why_no_cuda(cuda_state()) is None:
        pytest.skip("this machine has a GPU that works")


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("algorithm", ["tvl1", "farneback", "dis", "tvl1-opencv"])
def test_auto_is_the_cpu_where_there_is_no_gpu(algorithm: str) -> None:
    assert resolve_device("auto", algorithm) == Device("cpu")


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_gpu_that_is_not_there_is_refused_with_reason_and_remedy(name: str) -> None:
    reason = why_no_cuda(cuda_state())
    with pytest.raises(ConfigError) as caught:
        create_estimator("tvl1", device=name)
    assert str(caught.value) == (f"device {name!r} cannot be used: {reason}; or take --device cpu")


@pytest.mark.parametrize("algorithm", ["dis", "tvl1-opencv", "farneback-opencv"])
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps", "torch-cpu"])
def test_algorithm_without_a_gpu_version(algorithm: str, device: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_estimator(algorithm, device=device)
    assert str(caught.value) == (
        f"device of {algorithm} must be cpu, got {device!r}; tvl1 and farneback have a version "
        "for GPUs"
    )


def test_auto_takes_a_gpu_that_works_and_only_for_what_computes_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimators, "cuda_state", lambda: WORKING)
    assert resolve_device("auto", "tvl1") == Device("cuda")
    assert resolve_device("auto", "dis") == Device("cpu")
    assert resolve_device("cuda:1", "tvl1") == Device("cuda", 1)
    with pytest.raises(ConfigError, match=r"device 'cuda:2' cannot be used: this machine has"):
        resolve_device("cuda:2", "tvl1")


@pytest.mark.usefixtures("_no_gpu")
def test_a_machine_without_a_driver_does_not_import_torch() -> None:
    if cuda_state().driver is not None:
        pytest.skip("this machine has NVIDIA's driver")
    code = (
        "import sys\n"
        "from flowprep.flow.estimators import resolve_device\n"
        "assert resolve_device('auto', 'tvl1').kind == 'cpu'\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("algorithm", ["tvl1", "farneback"])
def test_portable_version_agrees_with_the_native_one(algorithm: str) -> None:
    pytest.importorskip("torch")
    scene = action_scene("move_left", num_frames=2, width=160, height=128, seed=1)
    prev, following = (
        np.asarray(cv2.cvtColor(scene.frame(t), cv2.COLOR_RGB2GRAY), np.uint8) for t in range(2)
    )
    native = create_estimator(algorithm)
    portable = create_estimator(algorithm, device="torch-cpu")
    assert type(portable) is not type(native)
    assert portable.implementation == native.implementation
    assert (portable.device_name, native.device_name) == ("cpu", "cpu")
    first, second = native(prev, following), portable(prev, following)
    assert first.shape == second.shape
    assert np.linalg.norm(first - second, axis=2).mean() < 0.02
