"""`flowprep metrics`: flow files against ground truth."""

from __future__ import annotations

import json

import click

from flowprep.cli.output import echo_line
from flowprep.printable import one_line

__all__ = ["metrics"]


@click.command
@click.argument("estimate")
@click.argument("truth")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def metrics(estimate: str, truth: str, as_json: bool) -> None:
    """Score the flow file ESTIMATE against the ground truth TRUTH. Both may be folders.

    The files are Middlebury's .flo (values above 1e9 mean unknown) or KITTI's 16-bit .png (with a
    valid bit). In folders, files with the same name without the ending belong together.

    \b
    EPE     mean endpoint error in pixels
    AAE     mean angle between (u, v, 1) and its true value, in degrees
    Fl-all  share of pixels whose error is above 3 px and above 5 % of the true length (KITTI)
    valid   share of pixels that are scored, because both files know their flow

    \b
    flowprep metrics flow10.flo RubberWhale/flow10.flo
    flowprep metrics estimates kitti/training/flow_occ
    """
    from flowprep.flow.metrics import find_flow_pairs, score_files, total_score

    scores = [
        score_files(one, other, name) for name, one, other in find_flow_pairs(estimate, truth)
    ]
    total = total_score(scores)
    if as_json:
        values = {"files": [one.to_dict() for one in scores], "all": total.to_dict()}
        click.echo(json.dumps(values, indent=2))
        return
    rows = scores if len(scores) == 1 else [*scores, total]
    names = [one_line(one.name) for one in rows]
    width = max(map(len, names))
    echo_line(f"{'':{width}}    EPE px   AAE deg   Fl-all     valid")
    for name, one in zip(names, rows, strict=True):
        echo_line(
            f"{name:{width}}  {one.epe_px:8.3f}  {one.aae_degrees:8.3f}  "
            f"{100 * one.fl_all:5.2f} %  {100 * one.valid_share:6.2f} %"
        )
    if total.num_scored < total.num_true:
        missing = 100 * (1 - total.density)
        echo_line(
            f"note: {missing:.2f} % of the pixels with known truth have no estimate and are not "
            "scored"
        )
