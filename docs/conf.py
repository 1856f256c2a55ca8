"""The docs site: pages in Markdown, every command's help, the docstrings of public names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click
from sphinx.application import Sphinx
from sphinx.util import logging

from flowprep import __version__
from flowprep.cli import cli
from flowprep.cli.options import GroupedOption

logger = logging.getLogger(__name__)

project = "flowprep"
author = "The flowprep authors"
copyright = "2026, the flowprep authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "flowprep"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
# An option is written with two dashes, and not with one long one.
smartquotes = False

# Docstrings quote names as Markdown does, with one backquote on each side.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"no-value": True}
# A site can be built without the extra `train`, which is large.
autodoc_mock_imports = [
    name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None
]


# Pages that lie outside of this folder, and the page that includes each.
_INCLUDED = {
    "../CHANGELOG.md": "changes.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../examples/cluster/README.md": "cluster-examples.md",
}


def _link_included(app: Sphinx, page: str, text: list[str]) -> None:
    """Points links to files outside of this folder at the pages that include them."""
    for file, including in _INCLUDED.items():
        text[0] = text[0].replace(f"]({file})", f"]({including})")


def _plain_description(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Shows the examples of a command's help as they are, and stars as stars."""
    plain: list[str] = []
    for line in lines:
        if line.startswith("| "):
            if not plain or not plain[-1].startswith("   "):
                plain += [".. code-block:: console", ""]
            plain.append(f"   {line.removeprefix('| ')}")
        else:
            if plain and plain[-1].startswith("   "):
                plain.append("")
            plain.append(line.replace("*", r"\*"))
    lines[:] = plain


def _group_options(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Puts the headings of a command's help between its options, which are in the same order."""
    groups = {
        parameter.opts[-1]: parameter.group
        for parameter in context.command.params
        if isinstance(parameter, GroupedOption)
    }
    grouped: list[str] = []
    last = None
    for line in lines:
        if line.startswith(".. option:: "):
            names = line.removeprefix(".. option:: ").replace(",", " ").split()
            group = next((groups[name] for name in names if name in groups), None)
            if group is not None and group != last:
                grouped += [f".. rubric:: {group}", ""]
                last = group
        grouped.append(line.replace("*", r"\*"))
    lines[:] = grouped


def _drop_module_docstring(
    app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    """Leaves out the docstring of a module, which is written for readers of the source."""
    if what == "module":
        lines.clear()


def _import_commands(app: Sphinx) -> None:
    """Puts the commands where sphinx-click looks for them; the command line imports them later."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        cli.commands[name] = command


def _check_commands(app: Sphinx, error: Exception | None) -> None:
    """Warns of an option that no page shows: sphinx-click passes over what it cannot read."""
    if error is not None or app.builder.format != "html":
        return
    text = (Path(app.outdir) / "commands.html").read_text(encoding="utf-8")
    for name, command in cli.commands.items():
        for parameter in command.params:
            shown = f"cmdoption-flowprep-{name}-{parameter.opts[0].lstrip('-')}"
            if isinstance(parameter, click.Option) and f'"{shown}"' not in text:
                logger.warning("commands.html does not show %s of %s", parameter.opts[0], name)


def setup(app: Sphinx) -> None:
    """Connects what is above to Sphinx's events."""
    app.connect("builder-inited", _import_commands)
    app.connect("source-read", _link_included)
    app.connect("sphinx-click-process-description", _plain_description)
    app.connect("sphinx-click-process-options", _group_options)
    app.connect("autodoc-process-docstring", _drop_module_docstring)
    app.connect("build-finished", _check_commands)
