"""The table of Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017).

    python examples/papers/quo_vadis.py --small WORK
    python examples/papers/quo_vadis.py KINETICS kinetics400.csv WORK

Its five architectures are a network with an LSTM, a 3D network, two streams, two streams fused in
3D, and I3D. Rows of networks that this version does not have are left out, and say so.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

SMALL = "--width .0625 --crop 48 --batch-size 8 --learning-rate .01"


def network(model: str, stream: str, small: str = "--frames 8", full: str = "") -> Training:
    """Returns a training of one architecture on one stream."""
    return Training(f"--model {model} --stream {stream}", full, f"{SMALL} {small}")


PAPER = Paper(
    "Quo Vadis, Action Recognition? (Carreira and Zisserman 2017)",
    "Kinetics-400, top-1 in percent.",
    "--preset i3d",
    {
        "lstm": network("i3d-lstm", "rgb"),
        "c3d": network("c3d-bn", "rgb", "--frames 16 --crop 56"),
        "fused": network("i3d-fused", "both", ""),
        "i3d-rgb": network("i3d", "rgb", full="--recipe i3d"),
        "i3d-flow": network("i3d", "flow", full="--recipe i3d"),
    },
    (
        Row("LSTM, RGB", ("lstm",)),
        Row("3D-ConvNet, RGB", ("c3d",)),
        Row("3D-Fused, both", ("fused",)),
        Row("I3D, RGB", ("i3d-rgb",), "71.1"),
        Row("I3D, flow", ("i3d-flow",), "63.4"),
        Row("I3D, both", ("i3d-rgb", "i3d-flow"), "74.2", "logits"),
    ),
    "--clips 4 --crops 1",
    absent=("the plain two-stream network, which is Inception-V1 over single frames and stacks.",),
)

if __name__ == "__main__":
    main(PAPER)
