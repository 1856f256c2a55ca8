"""The tables of Wang et al., Temporal Segment Networks (ECCV 2016).

    python examples/papers/tsn.py --small WORK
    python examples/papers/tsn.py UCF-101 ucfTrainTestlist WORK --weights bn_inception.pth

`bn_inception.pth` is ImageNet's BN-Inception, such as that of tsn-pytorch. Rows that need it are
left out without.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

FULL = "--recipe tsn-pytorch"
SMALL = "--width .125 --dropout .2 --learning-rate .01"


def network(stream: str, options: str, starts_from: str = "weights") -> Training:
    """Returns a training of the paper's network, BN-Inception over segments."""
    return Training(
        f"--model tsn-bn-inception --stream {stream} {options}",
        FULL,
        SMALL,
        starts_from=starts_from,
    )


STREAMS = ("rgb", "flow")
TRAININGS = {
    **{f"{one}-scratch": network(one, "--no-partial-bn", "") for one in STREAMS},
    **{f"{one}-cross": network(one, "--no-partial-bn") for one in STREAMS},
    **{f"{one}-partial-bn": network(one, "--partial-bn") for one in STREAMS},
    "difference": network("rgb-difference", "--partial-bn"),
    "flow-1": network("flow", "--partial-bn --segments 1"),
    "flow-5": network("flow", "--partial-bn --segments 5"),
    "flow-max": network("flow", "--partial-bn --consensus max"),
    "flow-weighted": network("flow", "--partial-bn --consensus weighted"),
}


def three(label: str, kind: str, papers: tuple[str, str, str]) -> tuple[Row, ...]:
    """Returns the rows of one way of training: RGB, flow and both."""
    rgb, flow = f"rgb-{kind}", f"flow-{kind}"
    return (
        Row(f"{label}: RGB", (rgb,), papers[0]),
        Row(f"{label}: flow", (flow,), papers[1]),
        Row(f"{label}: both", (rgb, flow), papers[2], "weighted"),
    )


PAPER = Paper(
    "Temporal Segment Networks (Wang et al. 2016)",
    "UCF101 split 1, top-1 in percent. The paper's first nine numbers are without segments.",
    "--preset tsn --split 1",
    TRAININGS,
    (
        *three("from scratch", "scratch", ("48.7", "81.7", "82.9")),
        *three("cross-modality", "cross", ("84.1", "86.6", "91.5")),
        *three("cross-modality, partial BN", "partial-bn", ("84.5", "87.2", "92.0")),
        Row("RGB difference", ("difference",)),
        Row("flow, 1 segment", ("flow-1",)),
        Row("flow, 5 segments", ("flow-5",)),
        Row("flow, consensus max", ("flow-max",)),
        Row("flow, consensus weighted", ("flow-weighted",)),
    ),
    "--views 250",
    Training("--model tsn-bn-inception --stream rgb", small=SMALL, on=("looks",)),
)

if __name__ == "__main__":
    main(PAPER)
