"""Recurrent layers over sequences: convolutional ones over maps, and an LSTM with batch norm.

A convolutional layer replaces each matrix product of a recurrent cell by a convolution, so that a
place of a map sees its neighborhood below it and its neighborhood one step before. The rows of the
gates have PyTorch's order, and with windows of 1 x 1 the cells are `nn.RNNCell`, `nn.GRUCell` and
`nn.LSTMCell`. So tensors of these cells fit, with two dimensions of 1 behind them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.network_options import CellName

__all__ = [
    "BatchNormLSTM",
    "ConvGRU",
    "ConvLSTM",
    "ConvRNN",
    "ConvRecurrent",
    "make_conv_recurrent",
]

State = tuple[torch.Tensor, ...]
"""What a layer remembers from one step to the next. The first is what the layer above sees."""


class ConvRecurrent(nn.Module):
    """A recurrent layer over maps: (N, T, C, H, W) -> (N, T, channels, H / stride, W / stride).

    `kernel` and `stride` are those of the convolution over the layer below, `state_kernel` is that
    of the convolution over the layer's own maps of the step before. Both pad with zeros. With
    `norm`, the result of the first is normalized over the batch, all steps alike.
    """

    num_gates: int
    num_states: int = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        state_kernel: int = 3,
        bias: bool = True,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        gates = self.num_gates * channels
        self.below = nn.Conv2d(
            in_channels, gates, kernel, stride, kernel // 2, bias=bias and norm is None
        )
        self.norm = nn.Identity() if norm is None else norm(gates)
        self.before = nn.Conv2d(channels, gates, state_kernel, padding=state_kernel // 2, bias=bias)
        for layer in (self.below, self.before):
            _init_gates(layer, self.num_gates)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the layer's maps at every step."""
        return self.run(self.see(x))

    def see(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what each step sees of the layer below, (N, T, gates * channels, H', W')."""
        seen: torch.Tensor = self.norm(self.below(x.flatten(0, 1)))
        return seen.view(*x.shape[:2], *seen.shape[1:])

    def run(self, seen: torch.Tensor) -> torch.Tensor:
        """Returns the maps of all steps from the result of `see`. Before the first are zeros."""
        n, _, _, height, width = seen.shape
        zeros = seen.new_zeros((n, self.channels, height, width))
        state: State = (zeros,) * self.num_states
        steps = []
        for step in seen.unbind(1):
            state = self.step(step, state)
            steps.append(state[0])
        return torch.stack(steps, 1)

    def step(self, seen: torch.Tensor, state: State) -> State:
        """Returns the state after one step, from one step of `see` and the state before it."""
        raise NotImplementedError


class ConvRNN(ConvRecurrent):
    """A plain cell: h_t = tanh(W x_t + U h_t-1)."""

    num_gates = 1

    def step(self, seen: torch.Tensor, state: State) -> State:
        return (torch.tanh(seen + self.before(state[0])),)


class ConvGRU(ConvRecurrent):
    """A gated recurrent unit (Cho et al., EMNLP 2014).

    r and z are sigmoids of W x_t + U h_t-1, and h_t = (1 - z) n + z h_t-1. With `resets_state`, n
    is tanh(W x_t + U (r h_t-1)) as in Cho et al.; otherwise it is tanh(W x_t + r (U h_t-1)) as in
    `nn.GRUCell`, which needs one convolution less. `step` takes what else the gates r and z see.
    """

    num_gates = 3
    resets_state = False

    def step(self, seen: torch.Tensor, state: State) -> State:
        (before,) = state
        split = 2 * self.channels
        if self.resets_state:
            bias = self.before.bias
            weights = torch.split(self.before.weight, [split, self.channels])
            biases = (None, None) if bias is None else torch.split(bias, [split, self.channels])
            padding = self.before.padding
            assert not isinstance(padding, str)
            gates = seen[:, :split] + F.conv2d(before, weights[0], biases[0], padding=padding)
            r, z = gates.sigmoid().chunk(2, 1)
            own = F.conv2d(r * before, weights[1], biases[1], padding=padding)
        else:
            remembered = self.before(before)
            r, z = (seen[:, :split] + remembered[:, :split]).sigmoid().chunk(2, 1)
            own = r * remembered[:, split:]
        new = torch.tanh(seen[:, split:] + own)
        return (new + z * (before - new),)


class ConvLSTM(ConvRecurrent):
    """A long short-term memory without peepholes: c_t = f c_t-1 + i tanh(g), h_t = o tanh(c_t)."""

    num_gates = 4
    num_states = 2

    def step(self, seen: torch.Tensor, state: State) -> State:
        before, cell = state
        return _lstm_step(seen + self.before(before), cell)


def make_conv_recurrent(cell: CellName) -> type[ConvRecurrent]:
    """Returns the layer with this cell."""
    return {"plain": ConvRNN, "gru": ConvGRU, "lstm": ConvLSTM}[cell]


class BatchNormLSTM(nn.Module):
    """An LSTM with batch norm, (N, T, F) -> (N, T, size) (Cooijmans et al., Recurrent Batch
    Normalization, ICLR 2017, section 3).

    What comes from below, what comes from the step before, and the cell before its tanh are each
    normalized over the batch. Scales begin at .1, and are the same at all steps. Each of the first
    `num_steps` steps has its own statistics; later steps take those of the last of them.
    """

    def __init__(self, in_features: int, size: int, num_steps: int) -> None:
        super().__init__()
        self.size = size
        self.weight_ih = nn.Parameter(torch.empty(4 * size, in_features))
        self.weight_hh = nn.Parameter(torch.empty(4 * size, size))
        self.bias = nn.Parameter(torch.zeros(4 * size))
        self.norm_ih = _StepNorm(4 * size, num_steps, has_shift=False)
        self.norm_hh = _StepNorm(4 * size, num_steps, has_shift=False)
        self.norm_c = _StepNorm(size, num_steps, has_shift=True)
        for weight in (self.weight_ih, self.weight_hh):
            for gate in weight.chunk(4):
                nn.init.orthogonal_(gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the output of every step."""
        h = c = x.new_zeros((len(x), self.size))
        steps = []
        for place, seen in enumerate(F.linear(x, self.weight_ih).unbind(1)):
            below = self.norm_ih.at(place, seen)
            before = self.norm_hh.at(place, F.linear(h, self.weight_hh))
            i, f, g, o = (below + before + self.bias).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * self.norm_c.at(place, c).tanh()
            steps.append(h)
        return torch.stack(steps, 1)


class _StepNorm(nn.BatchNorm1d):
    """A batch norm with statistics for each step, and a scale for all of them."""

    def __init__(self, num_features: int, num_steps: int, *, has_shift: bool) -> None:
        super().__init__(num_features)
        self.num_steps = num_steps
        self.register_buffer("running_mean", torch.zeros(num_steps, num_features))
        self.register_buffer("running_var", torch.ones(num_steps, num_features))
        nn.init.constant_(self.weight, 0.1)
        if not has_shift:
            self.register_parameter("bias", None)

    def at(self, step: int, x: torch.Tensor) -> torch.Tensor:
        """Returns (N, F) as a batch of this step, normalized."""
        place = min(step, self.num_steps - 1)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        return F.batch_norm(
            x,
            self.running_mean[place],
            self.running_var[place],
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


def _lstm_step(gates: torch.Tensor, cell: torch.Tensor) -> State:
    i, f, g, o = gates.chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _init_gates(layer: nn.Conv2d, num_gates: int) -> None:
    """Draws each gate's weights by itself (Glorot and Bengio, AISTATS 2010). Biases are zero."""
    for gate in layer.weight.chunk(num_gates):
        nn.init.xavier_uniform_(gate)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
