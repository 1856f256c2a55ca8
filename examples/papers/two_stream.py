"""The tables of Simonyan and Zisserman, Two-Stream Convolutional Networks (NIPS 2014).

    python examples/papers/two_stream.py --small WORK
    python examples/papers/two_stream.py UCF-101 ucfTrainTestlist WORK --weights cnn-m-2048=FILE \
        --other HMDB51 hmdbSplits

FILE is a checkpoint of CNN-M-2048 that was trained on ImageNet. Rows that need it, or the second
data set, are left out without.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

MODEL = "--model cnn-m-2048"
FULL = "--recipe two-stream"
# Nine of ten features dropped need the paper's 80,000 steps, not 60.
SMALL = "--width .125 --dropout .2 --learning-rate .002 --steps 60"
IMAGENET = ("cnn-m-2048",)


def flow(options: str) -> Training:
    """Returns a training on stacks of flow."""
    return Training(f"{MODEL} --stream flow {options}", FULL, SMALL)


def both(label: str, rgb: str, flow: str, paper: str, method: str = "mean") -> Row:
    """Returns a row that fuses a network of each stream."""
    return Row(label, (rgb, flow), paper, method)


PAPER = Paper(
    "Two-Stream Convolutional Networks (Simonyan and Zisserman 2014)",
    "UCF101 split 1, top-1 in percent (tables 1 and 3, and section 6 for several tasks).",
    "--preset two-stream-2014 --split 1",
    {
        "rgb-scratch": Training(f"{MODEL} --stream rgb", FULL, SMALL),
        "rgb-tuned": Training(f"{MODEL} --stream rgb", FULL, SMALL, IMAGENET),
        "rgb-last-layer": Training(
            f"{MODEL} --stream rgb --freeze trunk",
            f"{FULL} --dropout .5",
            SMALL,
            IMAGENET,
            has_train_scores=True,
        ),
        "flow-1": flow("--frames 1"),
        "flow-5": flow("--frames 5"),
        "flow-10": flow("--frames 10"),
        "flow-10-no-mean": flow("--frames 10 --no-subtract-mean-flow"),
        "flow-10-trajectory": flow("--frames 10 --stack trajectory"),
        "flow-10-bidirectional": flow("--frames 10 --stack bidirectional"),
        "flow-10-two-sets": Training(
            f"{MODEL} --stream flow --frames 10",
            FULL,
            SMALL,
            on=("main", "other"),
            has_train_scores=True,
        ),
    },
    (
        Row("RGB, from scratch", ("rgb-scratch",), "52.3"),
        Row("RGB, fine-tuned", ("rgb-tuned",), "72.8"),
        Row("RGB, last layer", ("rgb-last-layer",), "72.7"),
        Row("flow, 1 field", ("flow-1",), "73.9"),
        Row("flow, 5 fields", ("flow-5",), "80.4"),
        Row("flow, 10 fields, no mean subtraction", ("flow-10-no-mean",), "79.9"),
        Row("flow, 10 fields", ("flow-10",), "81.0"),
        Row("flow, 10 fields, trajectory", ("flow-10-trajectory",), "80.2"),
        Row("flow, 10 fields, bidirectional", ("flow-10-bidirectional",), "81.2"),
        Row("flow, multi-task", ("flow-10-two-sets",), "81.5"),
        both("both, bidirectional", "rgb-last-layer", "flow-10-bidirectional", "85.6"),
        both("both, average", "rgb-last-layer", "flow-10", "85.9"),
        both("both, multi-task, average", "rgb-last-layer", "flow-10-two-sets", "86.2"),
        both("both, multi-task, SVM", "rgb-last-layer", "flow-10-two-sets", "87.0", "svm"),
    ),
    "--views 250",
    {"cnn-m-2048": Training(f"{MODEL} --stream rgb", small=SMALL, on=("looks",))},
    ("Multi-task: the paper trains on all videos of HMDB51. Here they are those of its split 1.",),
)

if __name__ == "__main__":
    main(PAPER)
