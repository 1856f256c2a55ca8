"""`flowprep doctor`: what this machine can do."""

from __future__ import annotations

import faulthandler
import json
import sys

import click

__all__ = ["doctor"]


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def doctor(as_json: bool) -> int:
    """Say what this machine can do: versions, cores, GPUs, decoders, folders, extras.

    A small clip is written, decoded and extracted into a shard. At the end a pair of frames is
    computed by each algorithm on each device, checked against the known motion, and timed. A dash
    marks what is missing and not needed, NOT SUPPORTED a version that flowprep is not made for.
    Exit code 0 when extraction works, 1 when something that it needs is broken; the line says what
    helps.
    """
    from flowprep.doctor import examine, exit_code, verdict

    # A library that ends the process, on a machine that it does not know, is named at least.
    if hasattr(sys.stderr, "fileno"):
        faulthandler.enable(sys.__stderr__ or sys.stderr)
    sections = []
    for section in examine():
        sections.append(section)
        if not as_json:
            click.echo(section.summary() + "\n")
    if as_json:
        values = {
            "works": exit_code(sections) == 0,
            "sections": [section.to_dict() for section in sections],
        }
        click.echo(json.dumps(values, indent=2))
    else:
        click.echo(verdict(sections))
    return exit_code(sections)
