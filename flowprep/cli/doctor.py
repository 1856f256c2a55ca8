"""`flowprep doctor`: what this machine can do."""

from __future__ import annotations

import faulthandler
import json
import sys

import click

from flowprep.cli.output import echo_line

__all__ = ["doctor"]


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def doctor(as_json: bool) -> int:
    """Check what this machine can do: versions, cores, GPUs, decoders, folders, extras.

    The command writes a small clip, decodes it and extracts it into a shard. Then it computes the
    flow of one frame pair with each algorithm on each device, checks the flow against the known
    motion, and measures the time. A dash marks something that is missing but not needed. NOT
    SUPPORTED marks a version that flowprep was not made for. The exit code is 0 when extraction
    works. It is 1 when something that extraction needs is broken; that line says how to repair it.
    """
    from flowprep.doctor import examine, exit_code, verdict

    # A library may end the process on a machine that it does not know. Then its name is printed.
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
        echo_line(verdict(sections))
    return exit_code(sections)
