"""What can be held of the pages without running them: links, lengths, options, reasons."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import click
import pytest

from flowprep.cli import cli
from tests.docs.pages import PAGES, REASONS, ROOT, RUN_PAGES, flowprep_arguments, read_page
from tests.docs.prepare import NAMES
from tests.test_house import ROOMS

LANGUAGES = {"sh", "python", "diff", "text", "{toctree}", "{eval-rst}", "{include}"}

OTHER_OPTIONS = frozenset(
    (
        "--against",
        "--end-to-end",
        "--evaluate",
        "--extract",
        "--features",
        "--list",
        "--no-deps",
        "--nproc-per-node",
        "--num-cpus",
        "--num-gpus",
        "--other",
        "--row",
        "--scenes",
        "--size",
        "--small",
        "--train",
    )
)
"""Options of scripts, of pip, of Ray and of torchrun that a page names."""

README_LINES = 175
LONGEST_LINE = {"README.md": 120}


def command_named(name: str) -> click.Command:
    """The command; raises KeyError where there is none."""
    command = cli.get_command(click.Context(cli), name)
    if command is None:
        raise KeyError(name)
    return command


def all_options() -> set[str]:
    """Every option of every command."""
    return {
        option
        for name in cli.list_commands(click.Context(cli))
        for parameter in command_named(name).params
        if isinstance(parameter, click.Option)
        for option in [*parameter.opts, *parameter.secondary_opts]
    }


def codes(prose: str) -> list[str]:
    """What stands between backquotes, on one line each."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def parse(arguments: list[str]) -> None:
    """Parses a command line as click would, without the checks of its values."""
    if arguments in (["--help"], ["--version"]):
        return
    name, *rest = arguments
    command = command_named(name)
    # A command keeps the help option of the first context that it sees: this is its real one.
    parent = click.Context(cli, info_name="flowprep", **cli.context_settings)
    context = click.Context(command, parent=parent, info_name=name)
    command.make_parser(context).parse_args([word for word in rest if word != "..."])


@pytest.mark.parametrize("name", PAGES)
def test_blocks_have_a_language_that_the_tests_know(name: str) -> None:
    page = read_page(name)
    assert {block.language for block in page.blocks} <= LANGUAGES
    assert set(page.begins_with) <= set(NAMES)


@pytest.mark.parametrize("name", RUN_PAGES)
def test_every_command_of_a_page_is_one_that_click_knows(name: str) -> None:
    page = read_page(name)
    lines = [
        line for block in page.blocks if block.language == "sh" for _, line in block.commands()
    ]
    lines += [code for code in codes(page.prose) if code.startswith("flowprep ")]
    for line in lines:
        arguments = flowprep_arguments(line)
        if arguments is None:
            continue
        try:
            parse(arguments)
        except (KeyError, click.UsageError) as error:
            pytest.fail(f"{name}: {line.strip()}: {error}")


@pytest.mark.parametrize("name", PAGES)
def test_every_option_that_a_page_names_is_there(name: str) -> None:
    known = all_options() | OTHER_OPTIONS | {"--help"}
    for code in codes(read_page(name).prose):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code):
            assert option in known, f"{name} names {option}, which no command has"


def test_an_unknown_command_or_option_fails() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["extract", "a", "b", "--no-such-option"])
    with pytest.raises(KeyError):
        parse(["extrakt", "a", "b"])


def test_blocks_that_are_not_run_say_why_and_are_few() -> None:
    counts = Counter(
        block.not_run for name in PAGES for block in read_page(name).blocks if block.not_run
    )
    assert set(counts) == set(REASONS)
    for reason, count in counts.items():
        assert count <= REASONS[reason], f"{count} blocks are not run: {reason}"


@pytest.mark.parametrize("name", PAGES)
def test_links_and_pictures_lead_to_files_and_headings(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert file.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in headings(file), f"{name} links to {target}"


def headings(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    found = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


@pytest.mark.parametrize("name", PAGES)
def test_lines_are_short_but_in_tables(name: str) -> None:
    page = read_page(name)
    code = [line for block in page.blocks for line in block.text.splitlines()]
    for line in [*page.prose.splitlines(), *code]:
        assert len(line) <= LONGEST_LINE.get(name, 130) or line.startswith("|"), f"{name}: {line}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_every_page_is_in_the_contents_and_the_readme_leads_to_those_for_users() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([a-z-]+)$", index, re.MULTILINE))
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert listed == pages
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    others = {"api", "changes", "cluster-examples", "commands", "contributing"}
    # The pages on training and networks lead to them.
    others |= {"features", "own-loops", "probing"}
    assert set(re.findall(r"\(docs/([a-z-]+)\.md\)", readme)) == pages - others


def test_every_measurement_has_a_processor_a_date_and_a_command() -> None:
    text = (ROOT / "docs/measured.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(sections) > 10
    for section in sections:
        title, _, body = section.partition("\n")
        first = " ".join(body.strip().partition("\n\n")[0].split())
        assert re.match(r"\*Processor: .+\. Date: .*\d{4}.*\. Command: .+\*$", first), title


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_are_there(name: str) -> None:
    page = read_page(name)
    text = "\n".join([page.prose, *(block.text for block in page.blocks)])
    for path in re.findall(r"(?<![\w/.])((?:scripts|tests|examples)/[\w./*-]*[\w*])", text):
        # PYTHON stands for any of them.
        assert list(ROOT.glob(path.replace("PYTHON", "*"))), f"{name} names {path}"
    files = {path.name for path in (ROOT / "flowprep").rglob("*.*")}
    for code in codes(page.prose):
        if not re.fullmatch(r"[\w/]+\.(?:py|cu)", code):
            continue
        places = (ROOT / code, ROOT / "flowprep" / code)
        assert any(place.exists() for place in places) or code in files, f"{name} names {code}"


def test_contributing_lists_the_rooms_from_the_top_down() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| room |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    listed = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    # The inner rooms of a folder are listed in the test alone.
    outer = [room for room in reversed(ROOMS) if room.count(".") < 2]
    rooms = [room.removeprefix("flowprep.") for room in outer]
    files = {"flowprep": "__init__.py"}
    expected = [
        files.get(room) or (f"{room}/" if (ROOT / "flowprep" / room).is_dir() else f"{room}.py")
        for room in rooms
    ]
    assert listed == [one for one in expected if one not in ("__main__.py", "_version.py")]


def test_contributing_names_every_script() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and path.stat().st_mode & 0o100:
            assert f"scripts/{path.name}" in text, path.name
