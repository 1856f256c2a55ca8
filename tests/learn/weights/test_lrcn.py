"""LRCN's files, as lisa-caffe-public writes them, give the scores of Caffe's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.lrcn import LRCN
from flowprep.learn.weights.files import read_file
from flowprep.learn.weights.formats import find_format
from flowprep.learn.weights.load import load_weights_into
from tests.learn.weights.caffe_files import Blobs, Style, caffemodel

WIDTH, SIDE, NUM_FRAMES = 1 / 16, 64, 3


def network() -> LRCN:
    flow = ClipInput("flow", "flow", "volume", NUM_FRAMES, has_magnitude=True)
    torch.manual_seed(0)
    return LRCN((flow,), 5, width=WIDTH, crop_px=SIDE).eval()


def layers(model: LRCN) -> dict[tuple[str, str], Blobs]:
    """Draws the blobs of each layer with values, by the names of the prototxt."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * 0.2).astype(np.float32)

    found: dict[tuple[str, str], Blobs] = {}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc8"):
        layer = getattr(model, name)
        kind = "Convolution" if name.startswith("conv") else "InnerProduct"
        theirs = "fc8-final" if name == "fc8" else name
        found[theirs, kind] = [drawn(*layer.weight.shape), drawn(*layer.bias.shape)]
    cells, length = model.lstm.hidden_size, model.lstm.input_size
    found["lstm1", "LSTM"] = [
        drawn(4 * cells, length),
        drawn(4 * cells),
        drawn(4 * cells, cells),
    ]
    return found


def caffe_steps(x: NDArray[np.float32], blobs: Blobs) -> NDArray[np.float64]:
    """Returns h of each step, as src/caffe/layers/lstm_unit_layer.cpp says: gates i, f, o, g."""
    below, bias, before = (one.astype(np.float64) for one in blobs)
    h = c = np.zeros((len(x), before.shape[1]))
    steps = []
    for t in range(x.shape[1]):
        gates = x[:, t] @ below.T + bias + h @ before.T
        i, f, o, g = np.split(gates, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-one)) for one in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        steps.append(h)
    return np.stack(steps, 1)


@pytest.mark.parametrize("style", ["packed", "v1"])
@torch.no_grad()
def test_a_file_gives_caffe_s_scores(tmp_path: Path, style: Style) -> None:
    model = network()
    blobs = layers(model)
    path = tmp_path / "lstm_flow_iter_50000.caffemodel"
    path.write_bytes(caffemodel(blobs, style))

    report = load_weights_into(model, path)

    assert report.format_name == "lrcn-caffe"
    assert not report.missing
    assert not report.unexpected
    assert "does not say which" in report.notes[0]
    # x, y and magnitude come in reverse to the release's first convolution.
    theirs = torch.from_numpy(blobs["conv1", "Convolution"][0])
    assert torch.equal(model.conv1.weight, theirs.flip(1))
    x = torch.randn(2, 3, NUM_FRAMES, SIDE, SIDE)
    vectors = model.frame_vectors(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, -1))
    steps = caffe_steps(vectors.numpy(), blobs["lstm1", "LSTM"])
    weight, bias = blobs["fc8-final", "InnerProduct"]
    scores = torch.from_numpy(steps @ weight.T.astype(np.float64) + bias)
    expected = scores.softmax(2).mean(1)
    torch.testing.assert_close(model(x).softmax(1).double(), expected, rtol=1e-4, atol=1e-6)


def test_the_format_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(caffemodel(layers(network())))
    found = find_format(read_file(path).tensors)
    assert found is not None
    assert found[0] == "lrcn-caffe"
