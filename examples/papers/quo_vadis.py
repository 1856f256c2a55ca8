"""The table of Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017).

    python examples/papers/quo_vadis.py --small WORK
    python examples/papers/quo_vadis.py KINETICS kinetics400.csv WORK --weights inception-v1=FILE

FILE is Inception-V1 with batch norm, trained on ImageNet. All five architectures but the
3D-ConvNet start from it, I3D by inflated kernels.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

SMALL = "--width .125 --learning-rate .01"


def network(
    options: str, full: str, small: str, test: str, starts_from: tuple[str, ...] = ("inception-v1",)
) -> Training:
    """Returns a training of one architecture on one stream."""
    return Training(options, full, f"{SMALL} {small}", starts_from, test=test)


PAPER = Paper(
    "Quo Vadis, Action Recognition? (Carreira and Zisserman 2017)",
    "Kinetics-400, top-1 in percent, from ImageNet's weights (tables 2 and 3).",
    "--preset i3d",
    {
        "lstm": network(
            "--model i3d-lstm --stream rgb",
            "--recipe i3d-lstm",
            "--frames 6 --frame-stride 2 --dropout .2 --steps 40",
            "--clips 2 --crops 1",
        ),
        "c3d": network(
            "--model c3d-bn --stream rgb",
            "--recipe i3d --frames 16 --resize-short 128 --crop 112",
            "--frames 12 --dropout .2 --steps 40",
            "--clips 15 --crops 1",
            starts_from=(),
        ),
        "two-stream-rgb": network(
            "--model inception-v1 --stream rgb",
            "--recipe i3d --frames 1",
            "--dropout .2 --steps 30",
            "--clips 25 --crops 1",
        ),
        "two-stream-flow": network(
            "--model inception-v1 --stream flow",
            "--recipe i3d --frames 10",
            "--frames 10 --dropout .2 --steps 30",
            "--clips 25 --crops 1",
        ),
        "fused": network(
            "--model i3d-fused --stream both",
            "--recipe i3d-fused",
            "--frames 3 --frame-stride 1 --dropout .2 --steps 40",
            "--clips 5 --crops 1",
            starts_from=("two-stream-rgb", "two-stream-flow"),
        ),
        "i3d-rgb": network(
            "--model i3d --stream rgb",
            "--recipe i3d",
            "--frames 12 --steps 40",
            "--clips 4 --crops 1",
        ),
        "i3d-flow": network(
            "--model i3d --stream flow",
            "--recipe i3d",
            "--frames 12 --steps 30",
            "--clips 4 --crops 1",
        ),
    },
    (
        Row("(a) LSTM, RGB", ("lstm",), "63.3"),
        Row("(b) 3D-ConvNet, RGB", ("c3d",), "56.1"),
        Row("(c) Two-Stream, RGB", ("two-stream-rgb",), "62.2"),
        Row("(c) Two-Stream, flow", ("two-stream-flow",), "52.4"),
        Row("(c) Two-Stream, both", ("two-stream-rgb", "two-stream-flow"), "65.6", "logits"),
        Row("(d) 3D-Fused, both", ("fused",), "67.2"),
        Row("(e) Two-Stream I3D, RGB", ("i3d-rgb",), "71.1"),
        Row("(e) Two-Stream I3D, flow", ("i3d-flow",), "63.4"),
        Row("(e) Two-Stream I3D, both", ("i3d-rgb", "i3d-flow"), "74.2", "logits"),
    ),
    "--clips 4 --crops 1",
    {
        "inception-v1": Training(
            "--model inception-v1 --stream rgb",
            small=f"{SMALL} --dropout .2 --steps 20",
            on=("looks",),
        )
    },
    (
        "The paper's numbers are those of the test set, which has no public labels.",
        "(c) The paper trains both networks together. Here each is trained alone.",
        "(d) The towers start from those of (c). In the paper they start from ImageNet.",
    ),
)

if __name__ == "__main__":
    main(PAPER)
