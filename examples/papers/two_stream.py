"""The tables of Simonyan and Zisserman, Two-Stream Convolutional Networks (NIPS 2014).

    python examples/papers/two_stream.py --small WORK
    python examples/papers/two_stream.py UCF-101 ucfTrainTestlist WORK --weights FILE \
        --other HMDB51 hmdbSplits

FILE is a checkpoint of CNN-M-2048 that was trained on ImageNet. Rows that need it, or the second
data set, are left out without.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

MODEL = "--model cnn-m-2048"
FULL = "--recipe two-stream"
# Nine of ten features dropped need the paper's 80,000 steps, not 40.
SMALL = "--width .125 --dropout .2 --learning-rate .002"


def flow(options: str, has_train_scores: bool = False) -> Training:
    """Returns a training on stacks of flow."""
    return Training(
        f"{MODEL} --stream flow {options}", FULL, SMALL, has_train_scores=has_train_scores
    )


PAPER = Paper(
    "Two-Stream Convolutional Networks (Simonyan and Zisserman 2014)",
    "UCF101 split 1, top-1 in percent. Rows with * are the paper's means over all three splits.",
    "--preset two-stream-2014 --split 1",
    {
        "rgb-scratch": Training(f"{MODEL} --stream rgb", FULL, SMALL),
        "rgb-tuned": Training(
            f"{MODEL} --stream rgb", FULL, SMALL, starts_from="weights", has_train_scores=True
        ),
        "rgb-last-layer": Training(
            f"{MODEL} --stream rgb --freeze trunk", FULL, SMALL, starts_from="weights"
        ),
        "flow-1": flow("--frames 1"),
        "flow-5": flow("--frames 5"),
        "flow-10": flow("--frames 10", has_train_scores=True),
        "flow-10-no-mean": flow("--frames 10 --no-subtract-mean-flow"),
        "flow-10-trajectory": flow("--frames 10 --stack trajectory"),
        "flow-10-bidirectional": flow("--frames 10 --stack bidirectional"),
        "flow-10-two-sets": Training(
            f"{MODEL} --stream flow --frames 10", FULL, SMALL, on=("main", "other")
        ),
    },
    (
        Row("RGB, from scratch", ("rgb-scratch",)),
        Row("RGB, fine-tuned", ("rgb-tuned",), "73.0 *"),
        Row("RGB, last layer", ("rgb-last-layer",)),
        Row("flow, 1 field", ("flow-1",), "73.9"),
        Row("flow, 5 fields", ("flow-5",), "80.4"),
        Row("flow, 10 fields, no mean subtraction", ("flow-10-no-mean",), "79.9"),
        Row("flow, 10 fields", ("flow-10",), "81.0"),
        Row("flow, 10 fields, trajectory", ("flow-10-trajectory",), "80.2"),
        Row("flow, 10 fields, bidirectional", ("flow-10-bidirectional",), "81.2"),
        Row("flow, multi-task", ("flow-10-two-sets",), "83.7 *"),
        Row("both, average", ("rgb-tuned", "flow-10"), "86.9 *"),
        Row("both, SVM", ("rgb-tuned", "flow-10"), "88.0 *", "svm"),
    ),
    "--views 250",
    Training(f"{MODEL} --stream rgb", small=SMALL, on=("looks",)),
)

if __name__ == "__main__":
    main(PAPER)
