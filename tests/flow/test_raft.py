"""RAFT: the fields of torchvision's own `forward`, in batches of any size; and its weights."""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import flowprep
from flowprep.cli import main
from flowprep.config import Resize
from flowprep.errors import ConfigError, ConfigMismatchError, WeightsError
from flowprep.flow import create_estimator, raft_weights
from flowprep.flow.estimators import implementation_of
from flowprep.flow.parameters import RAFTParameters
from flowprep.synthetic import write_video
from tests.raft import network, rgb_frames, save_weights

import torch  # isort: skip
from flowprep.flow.raft import RAFT, padding_of  # isort: skip
from tests.torch_devices import devices, one_thread  # isort: skip

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights of both networks."""
    folder = tmp_path_factory.mktemp("weights")
    names = ("raft_large", "raft_small")
    return {name: save_weights(folder / f"{name}.pth", name) for name in names}


def of_torchvision(
    model: str, pair: list[NDArray[np.uint8]], num_updates: int, device: str
) -> NDArray[np.float32]:
    """torchvision's flow of frames that replicated borders make divisible by eight."""
    height, width = pair[0].shape[:2]
    (top, bottom), (left, right) = padding_of(height), padding_of(width)
    padded = [
        np.pad(frame, ((top, bottom), (left, right), (0, 0)), mode="edge").transpose(2, 0, 1)
        for frame in pair
    ]
    images = [torch.from_numpy(one)[None].to(device) / 255 * 2 - 1 for one in padded]
    with torch.inference_mode():
        flow = network(model).to(device)(*images, num_flow_updates=num_updates)[-1][0]
    found: NDArray[np.float32] = flow.permute(1, 2, 0).cpu().numpy()
    return found[top : top + height, left : left + width]


@devices
@pytest.mark.parametrize("model", ["raft_large", "raft_small"])
@pytest.mark.parametrize(
    ("width", "height", "num_updates"), [(131, 123, 3), (128, 136, 1), (141, 121, 2)]
)
def test_fields_are_torchvisions_own(
    model: str, width: int, height: int, num_updates: int, device: str, files: dict[str, Path]
) -> None:
    pair = rgb_frames(2, width, height)
    parameters = RAFTParameters(model, str(files[model]), num_updates)  # type: ignore[arg-type]
    found = RAFT(parameters, device=device)(*pair)
    assert (found.shape, found.dtype) == ((height, width, 2), np.float32)
    expected = of_torchvision(model, pair, num_updates, device)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@devices
def test_a_batch_does_not_change_a_field(device: str, files: dict[str, Path]) -> None:
    video = rgb_frames(5)
    parameters = RAFTParameters("raft_small", str(files["raft_small"]), 2)
    single = RAFT(parameters, device=device)
    pairs = list(RAFT(parameters, device=device, batch_pairs=3).pairs(video, step=2))
    assert [pair.index for pair in pairs] == [0, 1, 2]
    for pair in pairs:
        ends = video[pair.index], video[pair.index + 2]
        np.testing.assert_allclose(pair.forward, single(*ends), rtol=0, atol=1e-4)
        np.testing.assert_allclose(pair.backward, single(*ends[::-1]), rtol=0, atol=1e-4)
    (only,) = single.pairs(video[:2], directions=("backward",))
    assert only.forward is None
    np.testing.assert_array_equal(only.backward, single(*video[1::-1]))


def test_every_update_changes_the_field(files: dict[str, Path]) -> None:
    pair = rgb_frames(2)
    one, two = (
        RAFT(RAFTParameters("raft_small", str(files["raft_small"]), count))(*pair)
        for count in (1, 2)
    )
    assert np.abs(one - two).max() > 0.01


def test_the_least_side_is_the_least_that_torchvision_takes(files: dict[str, Path]) -> None:
    parameters = RAFTParameters("raft_small", str(files["raft_small"]), 1)
    least = RAFT.min_side_px
    assert RAFT(parameters)(*rgb_frames(2, least, least)).shape == (least, least, 2)
    with pytest.raises(ValueError, match="at least 16"):
        of_torchvision("raft_small", rgb_frames(2, least - 1, least - 1), 1, "cpu")


@pytest.mark.parametrize("side_px", range(121, 138))
def test_padding_divides_by_eight_with_the_odd_pixel_after(side_px: int) -> None:
    before, after = padding_of(side_px)
    assert (side_px + before + after) % 8 == 0
    assert before + after < 8
    assert after - before in (0, 1)


def test_memory_grows_with_the_square_of_the_pixels(files: dict[str, Path]) -> None:
    estimator = RAFT(RAFTParameters("raft_small", str(files["raft_small"])))
    small = estimator._bytes_per_pixel_of(256, 256) - estimator.bytes_per_pixel
    large = estimator._bytes_per_pixel_of(1024, 1024) - estimator.bytes_per_pixel
    # 32 x 32 features, each with each, in float32, and a third more for the coarser levels.
    assert small == math.ceil(4 * (32 * 32) ** 2 * 1.328125 / (256 * 256))
    assert large == pytest.approx(16 * small, rel=0.02)


@pytest.mark.parametrize("device", ["cpu", "torch-cpu", "auto"])
def test_it_is_there_on_every_kind_of_device(device: str, files: dict[str, Path]) -> None:
    estimator = create_estimator(
        "raft", device=device, raft_model="raft_small", raft_weights=str(files["raft_small"])
    )
    assert isinstance(estimator, RAFT)
    assert estimator.frames == "rgb"


# ---- weights


def test_implementation_holds_the_hash_of_the_weights(tmp_path: Path) -> None:
    found = set()
    for seed in range(2):
        file = save_weights(tmp_path / f"{seed}.pth", seed=seed)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        parameters = RAFTParameters("raft_small", str(file))
        implementation = implementation_of("raft", parameters)
        assert implementation == f"torchvision-raft-1, sha256:{digest}"
        assert parameters.resolved() == RAFTParameters("raft_small", f"sha256:{digest}")
        assert implementation_of("raft", parameters.resolved()) == implementation
        found.add(implementation)
    assert len(found) == 2


def test_what_training_scripts_wrap_around_weights_is_removed(tmp_path: Path) -> None:
    plain = save_weights(tmp_path / "plain.pth")
    state = torch.load(plain, weights_only=True)
    wrapped = tmp_path / "wrapped.pth"
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, wrapped)
    pair = rgb_frames(2)
    one, other = (RAFT(RAFTParameters("raft_small", str(f), 1))(*pair) for f in (plain, wrapped))
    np.testing.assert_array_equal(one, other)


def refused(file: Path, **options: Any) -> str:
    options = {"raft_model": "raft_small", "raft_weights": str(file)} | options
    with pytest.raises((WeightsError, ConfigError)) as caught:
        create_estimator("raft", **options)
    return str(caught.value)


def test_files_that_are_no_weights_of_the_network_are_refused(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    small = files["raft_small"]
    assert refused(small, raft_model="raft_large").startswith(
        f"{small} must hold the weights of torchvision's raft_large, and differs in "
    )
    own = tmp_path / "raft-sintel.pth"
    torch.save({"module.fnet.conv1.weight": torch.zeros(2)}, own)
    assert "torchvision has the same as C_T_V1 (things), C_T_SKHT_V1 (sintel)" in refused(own)
    assert refused(tmp_path / "none.pth") == (
        "raft_weights must be a file of weights or torchvision's name of weights of raft_small, "
        f"got '{tmp_path}/none.pth', which does not exist"
    )
    assert "which is not a file" in refused(tmp_path)
    code = tmp_path / "code.pth"
    code.write_bytes(pickle.dumps(partial(print, "executed")))
    assert "holds more, or is damaged" in refused(code)
    number = tmp_path / "number.pth"
    torch.save(3, number)
    assert "must hold a state dict (names -> tensors), got int" in refused(number)
    damaged = tmp_path / "damaged.pth"
    content = bytearray(small.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    wrong = r"is damaged or not PyTorch's \(the checksum of its part .* is wrong"
    assert re.search(wrong, refused(damaged))


def test_the_names_are_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(raft_weights.offered_weights("raft_small")) == {"C_T_V1", "C_T_V2", "DEFAULT"}
    large = raft_weights.offered_weights("raft_large")
    assert large["DEFAULT"] == large["C_T_SKHT_V2"]
    assert large["C_T_SKHT_V1"].endswith("/raft_large_C_T_SKHT_V1-0b8c9e55.pth")
    assert refused(Path("C_T_SKHT_V2")).endswith(
        "got 'C_T_SKHT_V2', which does not exist; torchvision's names are C_T_V1, C_T_V2, DEFAULT"
    )


def test_without_a_network_the_error_says_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # Nothing listens there.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    text = refused(Path("DEFAULT"))
    url = raft_weights.offered_weights("raft_small")["DEFAULT"]
    assert text.startswith(f"the weights DEFAULT cannot be downloaded from {url} (")
    assert text.endswith(
        "download that file where there is a network, and give it by --raft-weights FILE or put it "
        f"into {tmp_path}/hub/checkpoints"
    )
    # A file that was put there is taken.
    file = save_weights(tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    named = RAFTParameters("raft_small", "DEFAULT").resolved()
    assert named == RAFTParameters("raft_small", str(file)).resolved()


# ---- runs


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that offers weights by the name NEW, and the paths that it was asked for."""
    served = tmp_path / "served"
    served.mkdir()
    content = save_weights(tmp_path / "new.pth", seed=5).read_bytes()
    name = f"new-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (served / name).write_bytes(content)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    handler = partial(Handler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        monkeypatch.setattr(raft_weights, "offered_weights", lambda model: {"NEW": url})
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        yield asked
        server.shutdown()


def config_of(weights: str | Path) -> flowprep.ExtractConfig:
    parameters = RAFTParameters("raft_small", str(weights), 1)
    decode = flowprep.DecodeSpec(resize=Resize.parse("none"))
    return flowprep.ExtractConfig(decode, flowprep.FlowSpec("raft", parameters))


def write_videos(folder: Path, *names: str) -> Path:
    for name in names:
        folder.mkdir(exist_ok=True)
        write_video(folder / f"{name}.mp4", rgb_frames(3, 144, 128), 25.0)
    return folder


def test_a_run_finds_weights_once_and_stores_their_hash(
    tmp_path: Path, requests: list[str]
) -> None:
    videos, out = write_videos(tmp_path / "videos", "a", "b"), tmp_path / "out"
    config = config_of("NEW")
    assert flowprep.extract(videos, out, config, executor="inline").exit_code == 0
    assert len(requests) == 1
    header = flowprep.open_dataset(out).header
    digest = hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
    assert header.implementation == f"torchvision-raft-1, sha256:{digest}"
    assert header.config.flow.parameters == RAFTParameters("raft_small", f"sha256:{digest}", 1)
    assert set(header.versions) >= {"torch", "torchvision"}
    # The same bytes under another name are the same weights; others are refused.
    write_videos(videos, "c")
    again = flowprep.extract(videos, out, config_of(tmp_path / "new.pth"), executor="inline")
    assert (again.exit_code, len(requests)) == (0, 1)
    other = save_weights(tmp_path / "other.pth", seed=6)
    write_videos(videos, "d")
    with pytest.raises(ConfigMismatchError) as caught:
        flowprep.extract(videos, out, config_of(other), executor="inline")
    assert set(caught.value.differences) == {"implementation", "flow.parameters.raft_weights"}


def test_a_video_that_is_too_small_says_so(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", rgb_frames(3, 144, 112), 25.0)
    file = save_weights(tmp_path / "weights.pth")
    out = tmp_path / "out"
    flowprep.extract(tmp_path / "videos", out, config_of(file), executor="inline")
    assert "121 px" in (out / "failures.jsonl").read_text()


def test_the_preset_takes_other_weights_by_options(tmp_path: Path) -> None:
    videos, file = write_videos(tmp_path / "videos", "a"), save_weights(tmp_path / "weights.pth")
    options = ["--raft-model", "raft_small", "--raft-weights", str(file), "--num-flow-updates", "1"]
    options += ["--resize", "144x128", "--executor", "inline"]
    command = ["extract", str(videos), str(tmp_path / "out"), "--preset", "i3d-raft", *options]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0
    config = flowprep.open_dataset(tmp_path / "out").header.config
    assert (config.flow.quantizer, config.decode.interpolation) == ("floor", "area")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert config.flow.parameters == RAFTParameters("raft_small", f"sha256:{digest}", 1)
