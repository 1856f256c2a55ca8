"""The table of Tran et al., A Closer Look at Spatiotemporal Convolutions (CVPR 2018).

    python examples/papers/r2plus1d.py --small WORK
    python examples/papers/r2plus1d.py KINETICS kinetics400.csv WORK

The paper's numbers are those of its authors' repository, facebookresearch/VMZ
(c2/tutorials/models.md), which says that they are those of table 2.
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

PAPER = Paper(
    "A Closer Look at Spatiotemporal Convolutions (Tran et al. 2018)",
    "Kinetics-400, top-1 of videos in percent, 10 clips.",
    "--preset vmz-rgb",
    {
        f"{model}-{frames}": Training(
            f"--model {model} --stream rgb --variant vmz --frames {frames}",
            "--recipe vmz-rgb",
            "--width .0625 --crop 48 --batch-size 8 --learning-rate .01",
        )
        for model, _, _ in NETWORKS.values()
        for frames in (8, 16)
    },
    tuple(
        Row(f"{name}, {frames} frames", (f"{model}-{frames}",), paper)
        for frames, place in ((8, 0), (16, 1))
        for name, (model, *papers) in NETWORKS.items()
        for paper in [papers[place]]
    ),
    "--clips 10 --crops 1",
    absent=("f-R2D, and MCx and rMCx for x of 2, 4 and 5: these networks are not here.",),
)

if __name__ == "__main__":
    main(PAPER)
