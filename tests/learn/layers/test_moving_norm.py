"""Moving averages that forget the first batches soon."""

from __future__ import annotations

import torch

from flowprep.learn.layers.moving_norm import MovingNorm3d


def test_moving_averages_forget_the_first_batches_soon() -> None:
    norm = MovingNorm3d(3, eps=1e-3, momentum=0.5)
    other = MovingNorm3d(3, eps=1e-3, momentum=0.5)
    batches = [torch.randn(4, 3, 2, 5, 5) * 0.01 + place for place in range(8)]
    expected = torch.zeros(3)
    for number, batch in enumerate(batches):
        norm(batch)
        # 1, 4/5, 4/6, 4/7, and from then on as usual.
        share = (1, 4 / 5, 4 / 6, 4 / 7)[number] if number < 4 else 0.5
        expected = (1 - share) * expected + share * batch.mean((0, 2, 3, 4))
        torch.testing.assert_close(norm.running_mean, expected)
        # One that goes on from its state does the same.
        if number == 1:
            other.load_state_dict(norm.state_dict())
        elif number > 1:
            other(batch)
            torch.testing.assert_close(other.running_mean, norm.running_mean)
    assert (norm.running_var < 2e-4).all()
    norm.eval()(batches[0])
    torch.testing.assert_close(norm.running_mean, expected)
