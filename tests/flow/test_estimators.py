"""Which class computes an algorithm on a device, and what is stored of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowEstimator, FlowSpec, doctor
from flowprep.config import Resize
from flowprep.errors import ConfigError, ConfigMismatchError
from flowprep.flow import create_estimator, estimators
from flowprep.flow.devices import Device, cuda_state, why_no_cuda
from flowprep.flow.estimators import ESTIMATORS, device_kinds, implementation_of, resolve_device
from flowprep.flow.parameters import PARAMETERS, FarnebackParameters
from flowprep.synthetic import action_scene, textured_image
from tests.flow.test_devices import WORKING
from tests.own_estimators import CHANNEL_MOTIONS_PX, channel_frames, write_images


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
        f"device of {algorithm} must be cpu, got {device!r}; tvl1, farneback, brox and raft "
        "have a version for GPUs"
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


def test_every_algorithm_has_parameters_and_a_class_for_the_cpu() -> None:
    algorithms = {algorithm for algorithm, _ in ESTIMATORS}
    assert algorithms == set(PARAMETERS)
    assert all("cpu" in device_kinds(algorithm) for algorithm in algorithms)


# An algorithm of weights is tested with its own files.
@pytest.mark.parametrize(
    "algorithm", [name for name, kind in PARAMETERS.items() if not kind.takes_weights]
)
def test_all_classes_of_an_algorithm_agree_in_what_is_stored_and_taken(algorithm: str) -> None:
    pytest.importorskip("torch")
    classes = [ESTIMATORS[algorithm, kind]() for kind in device_kinds(algorithm)]
    parameters = PARAMETERS[algorithm]()
    assert {one.implementation_with(parameters) for one in classes} == {
        implementation_of(algorithm, parameters)
    }
    assert len({one.frames for one in classes}) == 1


def test_which_devices_there_are_needs_no_opencv_and_no_numpy() -> None:
    code = (
        "import sys\n"
        "from flowprep.flow.estimators import check_device, has_gpu_version\n"
        "assert has_gpu_version('tvl1') and not has_gpu_version('dis')\n"
        "assert str(check_device('cpu', 'dis')) == 'cpu'\n"
        "assert not {'cv2', 'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- an algorithm that is added


@dataclass(frozen=True)
class GreenParameters(FarnebackParameters):
    checkpoint: str = "a"


class Green(FlowEstimator):
    """Farneback of the green channel, as if from weights of a name."""

    frames = "rgb"
    implementation = "green-1"

    def __init__(self, parameters: GreenParameters) -> None:
        self._own = create_estimator("farneback-opencv", winsize=parameters.winsize)

    @classmethod
    def weights(cls, parameters: GreenParameters) -> str | None:
        return f"weights {parameters.checkpoint}"

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._own(*(np.ascontiguousarray(image[..., 1]) for image in (prev, next)))


@pytest.fixture
def _green(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMETERS, "green", GreenParameters)
    monkeypatch.setitem(ESTIMATORS, ("green", "cpu"), lambda: Green)


@pytest.mark.usefixtures("_green")
def test_an_entry_and_its_parameters_are_all_that_an_algorithm_of_rgb_frames_needs(
    tmp_path: Path,
) -> None:
    write_images(tmp_path / "videos" / "clip", channel_frames(4))
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")), FlowSpec("green"), EncodeSpec(jpeg_quality=100)
    )
    out = tmp_path / "out"
    assert flowprep.extract(tmp_path / "videos", out, config, executor="inline").exit_code == 0
    dataset = flowprep.open_dataset(out)
    assert dataset.header.implementation == "green-1, weights a"
    found = np.median(dataset.flow("clip", 0, 3)[:, 16:-16, 16:-16], axis=(0, 1, 2))
    np.testing.assert_allclose(found, CHANNEL_MOTIONS_PX[1], atol=0.2)
    other = replace(config, flow=FlowSpec("green", GreenParameters(checkpoint="b")))
    with pytest.raises(ConfigMismatchError) as caught:
        flowprep.extract(tmp_path / "videos", out, other, executor="inline")
    implementations = caught.value.differences["implementation"]
    assert implementations == ("green-1, weights a", "green-1, weights b")


@pytest.mark.usefixtures("_green")
def test_a_name_that_is_nearly_right_gets_a_hint_and_the_doctor_tries_what_is_added() -> None:
    with pytest.raises(ConfigError, match="got 'grean'; did you mean green"):
        FlowSpec("grean")
    wide = textured_image(doctor.HEIGHT_PX, doctor.WIDTH_PX + int(doctor.MOTION_PX), 0)
    finding = doctor._time_backend("green", "cpu", {"rgb": wide})
    assert finding.status == "ok"
    assert "Green" in finding.text
