"""A page in Debian's Chromium, driven by Playwright: the browser, waiting, and what is measured."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _absent(what: str) -> None:
    if os.environ.get("FLOWPREP_REQUIRE_BROWSER") == "1":
        pytest.fail(what)
    pytest.skip(what)


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """Yields the browser; skips without one, which FLOWPREP_REQUIRE_BROWSER=1 makes a failure."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        _absent("no chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        _absent("no playwright: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def until(page: Any, expression: str) -> None:
    """Waits for a JavaScript expression; Playwright's own way needs what the page forbids, eval."""
    for _ in range(500):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"waited for {expression}")


def watch_rows(page: Any) -> None:
    """Begins to note how many rows stand in the table, and how many are put in, at each change."""
    page.evaluate(
        """() => {
            window.rows = [];
            const table = document.getElementById("table");
            new MutationObserver((changes) => {
                const added = changes.flatMap((change) => [...change.addedNodes]);
                const isRow = (node) => node.nodeName === "TR";
                window.rows.push(table.querySelectorAll("td.key").length);
                window.rows.push(added.filter(isRow).length);
            }).observe(table, { childList: true, subtree: true });
        }"""
    )


def most_rows(page: Any) -> int:
    """The most rows that stood in the table, or were put into it at a time, since `watch_rows`.

    It is what a step of scrolling costs, however long the table is, on whatever machine.
    """
    page.wait_for_timeout(100)
    noted = page.evaluate("window.rows")
    assert noted, "no row was drawn"
    return int(max(noted))


def scroll_far(page: Any) -> None:
    """Scrolls the table in 90 frames, some of them far."""
    page.evaluate(
        """() => new Promise((resolve) => {
            const scroller = document.getElementById("scroller");
            let step = 0;
            const next = () => {
                scroller.scrollTop += step % 10 ? 700 : 60000;
                if (++step < 90) requestAnimationFrame(next); else resolve();
            };
            next();
        })"""
    )


def check_contrasts(page: Any, inks: Sequence[str], grounds: Sequence[str]) -> None:
    """Text has a contrast of 4.5 and more (WCAG 2.2, 1.4.3), by the page's CSS variables."""
    contrasts = page.evaluate(
        """([inks, grounds]) => {
            const probe = document.createElement("canvas").getContext("2d", {
                willReadFrequently: true,
            });
            const light = (name) => {
                probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
                probe.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...probe.getImageData(0, 0, 1, 1).data].map((value) => {
                    const share = value / 255;
                    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const all = {};
            for (const ink of inks) {
                for (const ground of grounds) {
                    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
                    all[`${ink} on ${ground}`] = (high + 0.05) / (low + 0.05);
                }
            }
            return all;
        }""",
        [list(inks), list(grounds)],
    )
    assert len(contrasts) == len(inks) * len(grounds)
    assert {pair: value for pair, value in contrasts.items() if value < 4.5} == {}


def keys(page: Any) -> list[str]:
    """The keys of the rows that are in the page."""
    return list(page.eval_on_selector_all("#table td.key", "all => all.map(c => c.textContent)"))
