"""The tables of Wang et al., Temporal Segment Networks (ECCV 2016).

    python examples/papers/tsn.py --small WORK
    python examples/papers/tsn.py UCF-101 ucfTrainTestlist WORK \
        --weights tsn-bn-inception=bn_inception.pth

`bn_inception.pth` is ImageNet's BN-Inception, such as that of tsn-pytorch. Rows that need it are
left out without.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

MODEL = "--model tsn-bn-inception"
SMALL = "--width .125 --dropout .2 --learning-rate .01 --steps 40"
IMAGENET = ("tsn-bn-inception",)


def network(stream: str, options: str, starts_from: tuple[str, ...] = IMAGENET) -> Training:
    """Returns a training of the paper's network, BN-Inception over segments."""
    recipe = "--recipe tsn-pytorch"
    if stream == "rgb-difference":
        recipe = "--recipe tsn --normalization tsn-pytorch"
    return Training(f"{MODEL} --stream {stream} {options}", recipe, SMALL, starts_from)


STREAMS = ("rgb", "flow")
ALL = "--partial-bn --segments 3"
TRAININGS = {
    name: training
    for one in STREAMS
    for name, training in {
        f"{one}-scratch": network(one, "--no-partial-bn --segments 1", ()),
        f"{one}-cross": network(one, "--no-partial-bn --segments 1"),
        f"{one}-partial-bn": network(one, "--partial-bn --segments 1"),
        f"{one}-max": network(one, f"{ALL} --consensus max"),
        f"{one}-average": network(one, f"{ALL} --consensus avg"),
        f"{one}-weighted": network(one, f"{ALL} --consensus weighted"),
    }.items()
} | {
    "difference": network("rgb-difference", "--partial-bn --segments 1"),
    "flow-5": network("flow", "--partial-bn --segments 5"),
}


def three(
    label: str, rgb: str, rgb_paper: str, flow: str, flow_paper: str, both_paper: str
) -> tuple[Row, ...]:
    """Returns the rows of one way of training: RGB, flow and both."""
    return (
        Row(f"{label}: RGB", (f"rgb-{rgb}",), rgb_paper),
        Row(f"{label}: flow", (f"flow-{flow}",), flow_paper),
        Row(f"{label}: both", (f"rgb-{rgb}", f"flow-{flow}"), both_paper, "weighted"),
    )


PAPER = Paper(
    "Temporal Segment Networks (Wang et al. 2016)",
    "UCF101 split 1, top-1 in percent (tables 1 to 3).",
    "--preset tsn --split 1",
    TRAININGS,
    (
        *three("1 segment, from scratch", "scratch", "48.7", "scratch", "81.7", "82.9"),
        Row("1 segment, ImageNet for RGB: both", ("rgb-cross", "flow-scratch"), "90.0", "weighted"),
        *three("1 segment, cross-modality", "cross", "84.1", "cross", "86.6", "91.5"),
        *three("1 segment, partial BN", "partial-bn", "84.5", "partial-bn", "87.2", "92.0"),
        Row("1 segment: RGB difference", ("difference",), "83.8"),
        Row("1 segment: RGB and its difference", ("rgb-partial-bn", "difference"), "87.3"),
        *three("3 segments, maximum", "max", "85.0", "max", "86.0", "91.6"),
        *three("3 segments, average", "average", "85.7", "average", "87.9", "93.5"),
        *three("3 segments, weighted", "weighted", "86.2", "weighted", "87.7", "92.4"),
        Row("5 segments, average: flow", ("flow-5",)),
    ),
    "--views 250",
    {
        "tsn-bn-inception": Training(
            f"{MODEL} --stream rgb --segments 1", small=SMALL, on=("looks",)
        )
    },
    ("The paper's rows with warped flow are not here.",),
    ("RGB difference stays at chance here: differences are small, and the steps are few.",),
)

if __name__ == "__main__":
    main(PAPER)
