"""Table 2 of Tran et al., A Closer Look at Spatiotemporal Convolutions (CVPR 2018).

    python examples/papers/r2plus1d.py --small WORK
    python examples/papers/r2plus1d.py KINETICS kinetics400.csv WORK

The paper's numbers are those of its authors' repository, facebookresearch/VMZ
(c2/tutorials/models.md), which says that these models are the paper's.
"""

from __future__ import annotations

from tables import Paper, Row, Training, main

NETWORKS = {
    "R2D": ("r2d-18", "60.0", "59.4"),
    "MC3": ("mc3-18", "63.3", "65.2"),
    "rMC3": ("rmc3-18", "62.8", "65.5"),
    "R3D": ("r3d-18", "62.3", "64.7"),
    "R(2+1)D": ("r2plus1d-18", "65.3", "68.5"),
}
"""Name in the paper -> name here, accuracy with 8 and with 16 frames."""


def training(model: str, num_frames: int) -> Training:
    """Returns the training of a network over so many frames."""
    return Training(
        f"--model {model} --stream rgb --variant vmz --frames {num_frames}",
        "--recipe vmz-rgb",
        "--width .0625 --crop 48 --learning-rate .01 --steps 30",
    )


PAPER = Paper(
    "A Closer Look at Spatiotemporal Convolutions (Tran et al. 2018)",
    "Kinetics-400, top-1 of videos in percent, 10 clips.",
    "--preset vmz-rgb",
    {f"{model}-{n}": training(model, n) for model, _, _ in NETWORKS.values() for n in (8, 16)},
    tuple(
        Row(f"{name}, {num_frames} frames", (f"{model}-{num_frames}",), accuracies[place])
        for place, num_frames in enumerate((8, 16))
        for name, (model, *accuracies) in NETWORKS.items()
    ),
    "--clips 10 --crops 1",
    notes=("f-R2D, and MCx and rMCx for x of 2, 4 and 5, are not here.",),
)

if __name__ == "__main__":
    main(PAPER)
