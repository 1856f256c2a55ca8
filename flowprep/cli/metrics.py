"""`flowprep metrics`: flow files against the truth."""

from __future__ import annotations

import json

import click

__all__ = ["metrics"]


@click.command
@click.argument("estimate")
@click.argument("truth")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def metrics(estimate: str, truth: str, as_json: bool) -> None:
    """Score the flow file ESTIMATE against the file TRUTH, or each file of two folders.

    Files are Middlebury's .flo (values beyond 1e9 are unknown) or KITTI's 16-bit .png (with a valid
    bit); those in folders are matched by their names without the ending.

    \b
    EPE     mean endpoint error in px
    AAE     mean angle between (u, v, 1) and the true one, in degrees
    Fl-all  share of errors of more than 3 px and 5 % of the true length, as KITTI counts
    valid   share of the pixels that are scored: known in both

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
    width = max(len(one.name) for one in rows)
    click.echo(f"{'':{width}}    EPE px   AAE deg   Fl-all     valid")
    for one in rows:
        click.echo(
            f"{one.name:{width}}  {one.epe_px:8.3f}  {one.aae_degrees:8.3f}  "
            f"{100 * one.fl_all:5.2f} %  {100 * one.valid_share:6.2f} %"
        )
    if total.num_scored < total.num_true:
        missing = 100 * (1 - total.density)
        click.echo(f"note: {missing:.2f} % of the known truth has no estimate, and is not scored")
