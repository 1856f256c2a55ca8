"""The page in a real browser: Debian's Chromium, driven by Playwright.

Without a browser these tests skip; with FLOWPREP_REQUIRE_BROWSER=1 that is a failure.
FLOWPREP_SCREENSHOTS=FOLDER keeps the screenshots.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowprep.look.findings.kinds import KINDS, Finding
from flowprep.look.report.page import write_report
from flowprep.look.report.report import Report
from flowprep.look.report.survey import VideoRow
from tests.look.chromium import check_contrasts, keys, most_rows, scroll_far, until, watch_rows
from tests.look.report.attack import ATTACK, attacked

NUM_ROWS = 100_000


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """(report, context settings) -> the page; at the end nothing was said on the console."""
    contexts: list[Any] = []
    said: list[str] = []

    def open_page(report: Report, **settings: Any) -> Any:
        path = tmp_path / "report.html"
        write_report(report, path)
        # No network at all: the page must not need it.
        context = chromium.new_context(offline=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: check_request(request.url))
        page.goto(path.as_uri())
        return page

    def check_request(url: str) -> None:
        if not url.startswith(("file:", "data:")):
            said.append(f"asked for {url}")

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def long_report(seeded_report: Report) -> Report:
    """As if the data set had 100,000 videos in 400 classes."""
    rng = np.random.default_rng(0)
    motions = rng.gamma(2, 1, NUM_ROWS).tolist()
    rows = tuple(
        VideoRow(
            key=f"class {n % 400:03d}/video_{n:06d}",
            label=f"class {n % 400:03d}",
            split="train" if n % 4 else "test",
            status="complete",
            num_frames=50 + n * 7919 % 500,
            width=340,
            height=256,
            fps=25.0,
            mean_px=motions[n],
            max_px=4 * motions[n],
            clipped_share=0.0,
            blank_share=0.0,
            num_bytes=1_000_000 + n,
        )
        for n in range(NUM_ROWS)
    )
    findings = tuple(Finding("cut", rows[n].key, "x", 0) for n in range(0, NUM_ROWS, 1000))
    return dataclasses.replace(seeded_report, rows=rows, findings=findings, shown=())


def test_sorting(opened: Any, seeded_report: Report) -> None:
    page = opened(seeded_report)
    assert keys(page)[0] == seeded_report.rows[0].key
    page.click("th button:text('Mean px')")
    order = sorted(seeded_report.rows, key=lambda row: -round(row.mean_px, 2))
    assert keys(page)[:5] == [row.key for row in order[:5]]
    assert page.get_attribute("th:has(button:text('Mean px'))", "aria-sort") == "descending"
    page.click("th button:text('Mean px')")
    assert page.get_attribute("th:has(button:text('Mean px'))", "aria-sort") == "ascending"
    assert keys(page)[0] == min(seeded_report.rows, key=lambda row: round(row.mean_px, 2)).key
    page.click("th button:text('Key')")
    assert keys(page)[:5] == sorted(row.key for row in seeded_report.rows)[:5]
    assert page.get_attribute("th:has(button:text('Mean px'))", "aria-sort") is None


def test_filtering(opened: Any, seeded_report: Report) -> None:
    page = opened(seeded_report)
    page.fill("#search", "STUDIO upside")
    until(page, "document.querySelectorAll('#table td.key').length === 1")
    assert keys(page) == ["studio/upside_down"]
    assert page.text_content("#count") == f"1 of {len(seeded_report.rows)} videos"
    page.press("#search", "Escape")
    page.select_option("#only", label="Scene cut (1)")
    assert keys(page) == ["move_down/cut"]
    page.fill("#search", "nothing like it")
    until(page, "document.querySelectorAll('#table td.key').length === 0")


def test_keyboard(opened: Any, seeded_report: Report) -> None:
    page = opened(seeded_report)
    page.focus("#scroller")
    for press in ("ArrowDown", "ArrowDown", "ArrowUp", "End", "Home", "PageDown", "ArrowDown"):
        page.keyboard.press(press)
    active = page.text_content("#table tr.active td.key")
    place = [row.key for row in seeded_report.rows].index(active)
    assert place > 5
    page.keyboard.press("Enter")
    until(page, "document.getElementById('told').textContent.startsWith('Copied')")
    told = page.text_content("#told")
    name = active.rpartition("/")[2]
    assert told == f"Copied: flowprep view {seeded_report.location} {active} --to {name}.mp4"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    # Every control is reached by Tab, and shows that it is.
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    reached = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"theme", "search", "only", "scroller", "SUMMARY", "BUTTON", "A"} <= reached


def test_100000_rows_stay_smooth(opened: Any, long_report: Report) -> None:
    page = opened(long_report, viewport={"width": 1280, "height": 900})
    watch_rows(page)
    scroll_far(page)
    assert most_rows(page) < 60
    assert len(keys(page)) < 60
    page.focus("#scroller")
    page.keyboard.press("End")
    assert keys(page)[-1] == long_report.rows[-1].key
    bottom = page.evaluate(
        """() => {
            const last = [...document.querySelectorAll("#table td.key")].at(-1);
            const box = document.getElementById("scroller").getBoundingClientRect();
            return box.bottom - last.getBoundingClientRect().bottom;
        }"""
    )
    assert -1 <= bottom <= 24  # the row is in sight, above a scroll bar
    page.keyboard.press("Home")
    assert keys(page)[0] == long_report.rows[0].key
    page.select_option("#only", label="Scene cut (100)")
    assert page.text_content("#count") == "100 of 100,000 videos"
    page.fill("#search", "video_001000")
    until(page, "document.querySelectorAll('#table td.key').length === 1")
    page.fill("#search", "")
    page.select_option("#only", "all")
    page.click("th button:text('Max px')")
    fastest = max(long_report.rows, key=lambda row: row.max_px)
    assert fastest.key in keys(page)[:3]


def test_more_rows_than_a_browser_has_height_for(opened: Any, long_report: Report) -> None:
    page = opened(dataclasses.replace(long_report, rows=3 * long_report.rows))
    places = """cells => cells.map((cell) => Number(cell.parentElement.dataset.place))"""
    page.focus("#scroller")
    page.keyboard.press("End")
    assert page.eval_on_selector_all("#table td.key", places)[-1] == 3 * NUM_ROWS - 1
    page.keyboard.press("ArrowUp")
    assert page.get_attribute("#table tr.active", "data-place") == str(3 * NUM_ROWS - 2)
    page.evaluate("document.getElementById('scroller').scrollTop /= 2")
    page.wait_for_timeout(100)
    shown = page.eval_on_selector_all("#table td.key", places)
    assert abs(shown[len(shown) // 2] - 1.5 * NUM_ROWS) < 100


def test_attacks_do_nothing(opened: Any, seeded_report: Report) -> None:
    page = opened(attacked(seeded_report))
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None
    assert keys(page)[0] == ATTACK
    page.focus("#scroller")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('told').textContent.startsWith('Copied')")
    assert page.evaluate("window.hit") is None


def test_findings_are_shown_with_words_and_pictures(opened: Any, seeded_report: Report) -> None:
    page = opened(seeded_report)
    titles = page.eval_on_selector_all("#findings h3", "all => all.map(h => h.textContent)")
    found = {finding.kind for finding in seeded_report.findings}
    assert titles == [words.title for kind, words in KINDS.items() if kind in found]
    broken = page.eval_on_selector_all(
        "img",
        "all => all.filter(i => i.checkVisibility() && !(i.complete && i.naturalWidth)).length",
    )
    assert broken == 0
    assert page.eval_on_selector_all("img", "all => all.filter(i => i.alt === null).length") == 0
    page.click("details:has(h3:text('Scene cut')) button.copy")
    page.wait_for_selector("button.copy:text('Copied')")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width"), [("desktop", 1280), ("phone", 390)])
def test_themes_and_widths(
    opened: Any, seeded_report: Report, theme: str, name: str, width: int, tmp_path: Path
) -> None:
    page = opened(seeded_report, color_scheme=theme, viewport={"width": width, "height": 850})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inks = ["--ink", "--quiet", "--accent", "--fault", "--suspicion", "--note"]
    check_contrasts(page, inks, ["--paper", "--card", "--hover"])
    folder = Path(os.environ.get("FLOWPREP_SCREENSHOTS") or tmp_path)
    page.screenshot(path=folder / f"report-{name}-{theme}.png", full_page=True)
    # The toggle goes through the system's colours, light and dark.
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = [page.evaluate(ground)]
    for _ in range(3):
        page.click("#theme")
        seen.append(page.evaluate(ground))
    assert seen[0] == seen[3]
    assert len(set(seen)) == 2


def test_text_scales_and_print_shows_all(opened: Any, seeded_report: Report) -> None:
    page = opened(seeded_report, viewport={"width": 1280, "height": 850})
    page.add_style_tag(content="html { font-size: 200% !important }")
    page.evaluate("dispatchEvent(new Event('resize'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    heights = page.eval_on_selector_all(
        "#table td.key", "all => all.map(c => c.getBoundingClientRect().height)"
    )
    assert min(heights) >= 60
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(keys(page)) == len(seeded_report.rows)
    assert page.eval_on_selector_all("details", "all => all.every(d => d.open)")
    assert not page.is_visible("#theme")
