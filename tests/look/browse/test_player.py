"""Playing, keys, comparing and haste in a real browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.look.color import flow_to_color
from flowprep.look.sources import StoredFlow
from tests.look.browse.browsing import CLIPS, make_dataset
from tests.look.browse.opening import Opened, address, fragment, hover, numbers, pixels, settled
from tests.look.chromium import until

KEY = "move_left/a"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowDataset]:
    dataset = open_dataset(make_dataset(tmp_path_factory.mktemp("browse-page")))
    yield dataset
    dataset.close()


def test_playing_goes_through_every_frame_in_step(opened: Opened, url: str) -> None:
    page = opened(url + address(KEY, panels="frame.color.reverse"))
    settled(page, 0)
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const texts = [...document.querySelectorAll(".panel .where")];
                const now = texts.map((one) => one.textContent).join();
                if (window.seen.at(-1) !== now) window.seen.push(now);
            }).observe(document.querySelector("#views"), {
                subtree: true, childList: true, characterData: true });
        }"""
    )
    page.uncheck("#loop")
    page.select_option("#speed", value="4")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    until(page, "window.seen.length >= 12")
    until(page, "!document.querySelector('#play').classList.contains('playing')")
    wanted = [f"{t},{t} → {t + 1},{t + 1} → {t}" for t in range(11)] + ["11,,"]
    assert page.evaluate("window.seen") == wanted
    # At the end it begins anew; with the loop it never ends.
    page.check("#loop")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    until(page, "window.seen.length >= 30")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.keyboard.press("Space")
    assert page.get_attribute("#play", "aria-label") == "Play"


def test_a_chosen_video_plays_unless_motion_is_unwanted(opened: Opened, url: str) -> None:
    for motion, plays in (("no-preference", True), ("reduce", False)):
        page = opened(url, motion=motion)
        page.click(f"#table td.key:text-is('{KEY}')")
        until(page, "document.querySelectorAll('.panel canvas').length === 4")
        page.wait_for_timeout(200)
        assert page.evaluate("document.querySelector('#play.playing') !== null") is plays


def test_keyboard(opened: Opened, url: str, dataset: FlowDataset) -> None:
    page = opened(url)
    every = [video.key for video in dataset.videos]

    def press(*names: str) -> None:
        for name in names:
            page.keyboard.press(name)

    press("ArrowDown")
    until(page, "document.querySelectorAll('.panel canvas').length === 4")
    assert fragment(page)["key"] == every[0]
    press("ArrowDown", "ArrowDown", "ArrowUp")
    place = every.index(KEY)
    while page.text_content("#table tr.active td.key") != KEY:
        now = every.index(page.text_content("#table tr.active td.key"))
        press("ArrowDown" if now < place else "ArrowUp")
    settled(page, 0)
    press("End")
    settled(page, 11)
    press("ArrowRight")
    settled(page, 11)
    press("ArrowLeft", "ArrowLeft")
    settled(page, 9)
    press("Shift+ArrowLeft")
    settled(page, 0)
    press("Shift+ArrowRight")
    settled(page, 10)
    press("Home")
    settled(page, 0)
    shown = "[...document.querySelectorAll('.panel')].map(one => one.dataset.panel).join('.')"
    press("1", "3", "7", "5")
    assert page.evaluate(shown) == "color.y.arrows.error"
    press("2", "4", "5", "7")
    # One panel always stays.
    assert page.evaluate(shown) == "error"
    press("1", "2", "7")
    press("[", "[", "]")
    assert page.input_value("#speed") == "0.5"
    press("d")
    assert page.get_attribute("#directions button:nth-child(2)", "aria-pressed") == "true"
    press("l")
    assert not page.is_visible("#list")
    press("/")
    assert page.is_visible("#list")
    assert page.evaluate("document.activeElement.id") == "search"
    # In the search, letters are letters.
    page.keyboard.type("cdl?1")
    assert page.input_value("#search") == "cdl?1"
    assert page.is_visible("#list")
    press("Escape", "Escape")
    assert page.evaluate("document.activeElement.id") != "search"
    press("?")
    assert page.evaluate("document.querySelector('#help').open")
    press("c", "Escape")
    assert not page.evaluate("document.querySelector('#help').open")
    assert not page.is_visible("#picking")
    # Every control is reached by Tab.
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    reached = set()
    for _ in range(60):
        press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = {"theme", "open-help", "search", "class", "split", "finding", "scroller", "compare"}
    wanted |= {"toggle-list", "close", "play", "first", "last", "back", "forth", "scrub", "speed"}
    assert wanted | {"loop", "scale", "auto-scale", "stage"} <= reached
    assert (
        page.eval_on_selector_all(
            "button",
            "all => all.filter(b => !(b.getAttribute('aria-label') || b.textContent.trim()))",
        )
        == []
    )


def test_compare(opened: Opened, url: str, dataset: FlowDataset) -> None:
    page = opened(url + address(KEY, t=3, panels="frame.color"))
    settled(page, 3)
    page.keyboard.press("c")
    assert page.is_visible("#picking")
    page.click("#table td.key:text-is('move_left/b')")
    until(page, "document.querySelectorAll('.view').length === 2")
    assert not page.is_visible("#picking")
    settled(page, 3)
    assert fragment(page)["with"] == "move_left/b"
    scale = float(page.input_value("#scale"))
    both = [StoredFlow(dataset, key).suggest_scale("forward") for key in (KEY, "move_left/b")]
    assert scale == max(both)
    for number, key in enumerate((KEY, "move_left/b")):
        color = flow_to_color(dataset.flow(key, 3, 1)[0], scale)
        assert np.abs(pixels(page, "color", number).astype(int) - color).max() <= 2
    hover(page, "color", 30, 20, CLIPS[0])
    shown = page.eval_on_selector_all(
        "[data-panel=color] .value", "all => all.map(one => one.textContent)"
    )
    for text, key in zip(shown, (KEY, "move_left/b"), strict=True):
        u, v = dataset.flow(key, 3, 1)[0, 20, 30].tolist()
        got = numbers(text.replace("\u2212", "-"))
        assert got == pytest.approx([u, v, math.hypot(u, v)], abs=6e-4)
    # The shorter one waits at its end.
    page.keyboard.press("End")
    until(page, "document.querySelector('#at').textContent === '11 / 11'")
    until(page, "document.querySelectorAll('.where')[2].textContent === '7 · ended'")
    # A link brings it all back.
    page.wait_for_timeout(350)
    again = opened(page.url)
    until(again, "document.querySelectorAll('.view').length === 2")
    assert fragment(again) == fragment(page)
    page.keyboard.press("Escape")
    until(page, "document.querySelectorAll('.view').length === 1")
    assert "with" not in fragment(page)
    page.go_back()
    until(page, "document.querySelectorAll('.view').length === 2")
    page.click("#close")
    until(page, "document.querySelector('#player').hidden")
    assert "key" not in fragment(page)


def test_many_videos_in_haste_end_in_the_last(
    opened: Opened, url: str, dataset: FlowDataset
) -> None:
    page = opened(url)
    for _ in range(3 * len(dataset.videos)):
        page.keyboard.press("ArrowDown")
    for _ in range(len(dataset.videos) // 2):
        page.keyboard.press("ArrowUp")
    wanted = page.text_content("#table tr.active td.key")
    until(page, f"document.querySelector('.view h2')?.title === {wanted!r}")
    page.wait_for_timeout(300)
    assert page.get_attribute(".view h2", "title") == wanted
    assert page.eval_on_selector_all(".view", "all => all.length") == 1


def test_a_video_that_is_left_while_it_is_read(opened: Opened, url: str) -> None:
    page = opened(url)
    held: list[Any] = []

    def hold(route: Any) -> None:
        if len(held) < 2:
            held.append(route)
        else:
            route.continue_()

    page.route(re.compile("name=flow_"), hold)
    page.keyboard.press("ArrowDown")
    until(page, "document.querySelectorAll('.panel canvas').length === 4")
    # Its frame is there, its flow never comes.
    page.wait_for_timeout(300)
    assert len(held) == 2
    page.keyboard.press("ArrowDown")
    until(page, "document.querySelector('.view h2').title === 'move_left/b'")
    settled(page, 0)
    assert page.text_content("[data-panel=color] .note") == ""
    assert pixels(page, "color").std() > 0
