"""The page of `flowprep browse` in a real browser; see tests/look/chromium.py.

FLOWPREP_SCREENSHOTS=FOLDER keeps the screenshots.
"""

from __future__ import annotations

import base64
import dataclasses
import http.server
import math
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep.config import Direction, EncodeSpec, FlowSpec
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo, VideoList
from flowprep.flow.consistency import consistency_error
from flowprep.inputs.keys import escape_key
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.look.color import error_to_color, flow_to_color
from flowprep.look.panels import CONSISTENCY_PX
from flowprep.look.sources import StoredFlow
from flowprep.storage import Storage
from tests.look.browsing import CLIPS, CONFIG, ODD_NAME, Clip, make_dataset, served
from tests.look.chromium import check_contrasts, most_rows, scroll_far, until, watch_rows

NUM_ROWS = 100_000
ALL_PANELS = "frame.color.x.y.arrows.reverse.error"
KEY = "move_left/a"
DESKTOP = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowDataset]:
    dataset = open_dataset(make_dataset(tmp_path_factory.mktemp("browse-page")))
    yield dataset
    dataset.close()


@pytest.fixture(scope="module")
def url(dataset: FlowDataset) -> Iterator[str]:
    survey = BackgroundSurvey(dataset)
    survey.start()
    survey.wait()
    with served(dataset, survey=survey) as url:
        yield url


class Opened:
    """Opens pages; at the end none has said anything on its console, or asked anybody else."""

    def __init__(self, chromium: Any) -> None:
        self.chromium = chromium
        self.contexts: list[Any] = []
        self.said: list[str] = []

    def __call__(self, url: str, *, motion: str = "reduce", **settings: Any) -> Any:
        settings = {"viewport": DESKTOP} | settings
        context = self.chromium.new_context(reduced_motion=motion, **settings)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        host = urlsplit(url).netloc
        page.on("request", lambda request: self.check(request.url, host))
        page.goto(url)
        until(page, "document.querySelector('#count').textContent !== ''")
        return page

    @contextmanager
    def serving(self, dataset: FlowDataset, **settings: Any) -> Iterator[str]:
        """Serves a data set of a test's own; pages that still load end before the server does."""
        with served(dataset, **settings) as url:
            yield url
            self.close()

    def close(self) -> None:
        for context in self.contexts:
            context.close()
        self.contexts = []

    def check(self, url: str, host: str) -> None:
        if urlsplit(url).netloc != host and not url.startswith("data:"):
            self.said.append(f"asked for {url}")


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opened]:
    opened = Opened(chromium)
    yield opened
    opened.close()
    assert opened.said == []


def address(key: str, **values: object) -> str:
    """The part of a link that names what is shown."""
    parts = [f"key={quote(key, safe='')}", *(f"{name}={value}" for name, value in values.items())]
    return "/#" + "&".join(parts)


def settled(page: Any, t: int) -> None:
    """Waits until frame t stands in every panel."""
    until(
        page,
        f"""[...document.querySelectorAll("[data-panel=frame] .where")].every((one) =>
                one.textContent.split(" ")[0] === "{t}")
            && document.querySelectorAll("[data-panel] .where").length > 0
            && document.querySelector("#at").textContent.startsWith("{t} /")
            && !document.querySelector("#player").hasAttribute("aria-busy")""",
    )
    page.wait_for_timeout(60)


def pixels(page: Any, panel: str, number: int = 0) -> NDArray[np.uint8]:
    """The panel's canvas, (H, W, 3)."""
    values = page.evaluate(
        """([panel, number]) => {
            const canvas = document.querySelectorAll(`[data-panel=${panel}] canvas`)[number];
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let text = "";
            for (let place = 0; place < data.length; place += 8192) {
                text += String.fromCharCode(...data.subarray(place, place + 8192));
            }
            return { width, height, data: btoa(text) };
        }""",
        [panel, number],
    )
    data = np.frombuffer(base64.b64decode(values["data"]), np.uint8)
    rgba = data.reshape(values["height"], values["width"], 4)
    assert (rgba[..., 3] == 255).all()
    return rgba[..., :3]


def keys(page: Any) -> list[str]:
    """The keys of the rows that are in the page."""
    return list(page.eval_on_selector_all("#table td.key", "all => all.map(c => c.textContent)"))


def fragment(page: Any) -> dict[str, str]:
    """What the address holds, once it is written."""
    page.wait_for_timeout(350)
    values = parse_qs(urlsplit(page.url).fragment)
    return {name: value[0] for name, value in values.items()}


def value(page: Any, panel: str) -> str:
    return str(page.text_content(f"[data-panel={panel}] .value")).replace("\u2212", "-")


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d+(?:\.\d+)?", text)]


def hover(page: Any, panel: str, x: int, y: int, clip: Clip) -> None:
    """Puts the pointer into the middle of a px of the video."""
    stage = page.locator(f"[data-panel={panel}] .stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.move(
        box["x"] + box["width"] * (x + 0.5) / clip.width,
        box["y"] + box["height"] * (y + 0.5) / clip.height,
    )


# ---- the list


def test_list_sorts_and_filters(opened: Opened, url: str, dataset: FlowDataset) -> None:
    page = opened(url)
    every = [video.key for video in dataset.videos]
    assert keys(page) == every
    assert page.title() == "out: flowprep browse"
    assert page.text_content("#count") == f"{len(every)} videos"
    assert "bound 8 px" in page.text_content("#about")
    page.click("th button:text('Frames')")
    order = sorted(dataset.videos, key=lambda video: -video.num_frames)
    assert keys(page) == [video.key for video in order]
    until(page, "document.querySelector('#table td.n:nth-child(6)').textContent !== ''")
    page.click("th button:text('Key')")
    assert keys(page) == sorted(every)
    page.select_option("#class", label="zoom_in (2)")
    assert keys(page) == ["zoom_in/pair", "zoom_in/tiny"]
    page.select_option("#class", label="all")
    page.select_option("#split", label="test (1)")
    assert keys(page) == ["move_left/b"]
    page.select_option("#split", label="all")
    # The name behind a key is found as well as the key.
    page.fill("#search", "日本")
    until(page, "document.querySelectorAll('#table td.key').length === 1")
    assert keys(page) == [escape_key(ODD_NAME)]
    assert fragment(page) == {"q": "日本", "sort": "key"}
    page.reload()
    until(page, "document.querySelectorAll('#table td.key').length === 1")
    assert page.input_value("#search") == "日本"
    page.focus("#search")
    page.keyboard.press("Escape")
    until(page, f"document.querySelectorAll('#table td.key').length === {len(every)}")


def test_findings_come_while_the_page_is_open(opened: Opened, seeded: Path) -> None:
    dataset = open_dataset(seeded)
    survey = BackgroundSurvey(dataset)
    survey._stage = "statistics"
    with opened.serving(dataset, survey=survey) as url:
        page = opened(url + address("move_down/cut"))
        until(page, "document.querySelector('#survey').textContent.startsWith('Reading stat')")
        assert page.eval_on_selector_all("#finding option", "all => all.length") == 2
        survey.start()
        until(page, "document.querySelectorAll('#finding option').length > 4")
        until(page, "document.querySelector('#survey').textContent === ''")
        page.select_option("#finding", "cut")
        assert keys(page) == ["move_down/cut"]
        page.select_option("#finding", "any")
        assert 5 < len(keys(page)) < len(dataset.videos)
        until(page, "document.querySelector('.findings').textContent.includes('Scene cut')")
        page.click(".findings button.go")
        pair = page.text_content(".findings button.go").removeprefix("Go to ")
        settled(page, int(pair))
    dataset.close()


def long_dataset(dataset: FlowDataset, count: int) -> FlowDataset:
    """As if there were so many videos in 400 classes."""
    videos = VideoList(
        StoredVideo(
            key=f"class-{n % 400:03d}/video_{n:06d}",
            labels=(n % 400,),
            split="train" if n % 4 else "test",
            num_frames=50 + n * 7919 % 500,
            num_flows=49 + n * 7919 % 500,
            width=340,
            height=256,
            fps=25.0,
            is_partial=False,
            shard=0,
            members={"json": (0, 1)},
        )
        for n in range(count)
    )
    header = dataclasses.replace(
        dataset.header, class_names=tuple(f"class {n:03d}" for n in range(400))
    )
    return FlowDataset(Storage(dataset.location), header, videos)


def test_100000_rows_stay_smooth(opened: Opened, dataset: FlowDataset) -> None:
    with opened.serving(long_dataset(dataset, NUM_ROWS)) as url:
        page = opened(url)
        watch_rows(page)
        scroll_far(page)
        assert most_rows(page) < 80
        assert len(keys(page)) < 80
        page.focus("#scroller")
        page.keyboard.press("End")
        assert keys(page)[-1].endswith(f"{NUM_ROWS - 1:06d}")
        page.evaluate("document.getElementById('scroller').scrollTop = 0")
        until(page, "document.querySelector('#table td.key').textContent.endsWith('000000')")
        page.select_option("#class", index=8)
        assert page.text_content("#count") == "250 of 100,000 videos"
        page.fill("#search", "video_000407")
        until(page, "document.querySelectorAll('#table td.key').length === 1")
        page.fill("#search", "")
        page.select_option("#class", label="all")
        page.click("th button:text('Frames')")
        until(page, "document.querySelector('#count').textContent === '100,000 videos'")
        assert page.text_content("#table td.n") == "549"
    # The last one was opened, and its shard holds nothing of it.
    assert all("500" in line for line in opened.said)
    opened.said.clear()


# ---- pictures and numbers


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_panels_show_what_the_data_set_holds(
    opened: Opened, url: str, dataset: FlowDataset, direction: Direction
) -> None:
    page = opened(url)
    for clip in CLIPS:
        check_panels(page, url, dataset, clip, direction)


def check_panels(
    page: Any, url: str, dataset: FlowDataset, clip: Clip, direction: Direction
) -> None:
    key = escape_key(clip.name)
    frame = clip.num_frames // 2
    field = frame if direction == "forward" else frame - 1
    # The middle frame of two has no flow forward.
    frame, field = (0, 0) if field >= clip.num_frames - 1 else (frame, field)
    if direction == "backward" and clip.num_frames == 2:
        frame, field = 1, 0
    link = address(key, t=frame, panels=ALL_PANELS, direction=direction)
    page.goto(url + link)
    until(page, f"document.querySelector('.view h2')?.title === {key!r}")
    settled(page, frame)
    other: Direction = "backward" if direction == "forward" else "forward"
    levels = dataset.quantized(key, field, 1, direction)[0]
    flow = dataset.flow(key, field, 1, direction)[0]
    back = dataset.flow(key, field, 1, other)[0]
    scale = StoredFlow(dataset, key).suggest_scale(direction)
    assert float(page.input_value("#scale")) == scale
    wanted = {
        "frame": dataset.frames(key, [frame])[0],
        "x": np.repeat(levels[..., :1], 3, axis=-1),
        "y": np.repeat(levels[..., 1:], 3, axis=-1),
        "color": flow_to_color(flow, scale),
        "reverse": flow_to_color(back, scale),
    }
    # What decodes JPEGs may round another way; the colours themselves may not.
    most = {"frame": 3, "x": 1, "y": 1, "color": 2, "reverse": 2}
    for name, image in wanted.items():
        shown = pixels(page, name)
        assert shown.shape == image.shape, name
        assert np.abs(shown.astype(int) - image).max() <= most[name], name
    error = consistency_error(flow, back)
    shown, drawn = pixels(page, "error"), error_to_color(error, CONSISTENCY_PX)
    apart = np.abs(shown.astype(int) - drawn).max(axis=-1)
    # OpenCV looks up at 1/32 px.
    assert np.mean(apart > 8) < 0.01
    assert len(np.unique(pixels(page, "arrows").reshape(-1, 3), axis=0)) > 50

    for x, y in ((0, 0), (clip.width // 3, clip.height // 2), (clip.width - 1, clip.height - 1)):
        hover(page, "color", x, y, clip)
        u, v = flow[y, x].tolist()
        assert page.text_content("#point") == f"x {x}  y {y}"
        assert numbers(value(page, "color")) == pytest.approx([u, v, math.hypot(u, v)], abs=6e-4)
        assert numbers(value(page, "arrows")) == numbers(value(page, "color"))
        assert numbers(value(page, "x")) == pytest.approx([u, levels[y, x, 0]], abs=6e-4)
        assert numbers(value(page, "y")) == pytest.approx([v, levels[y, x, 1]], abs=6e-4)
        u, v = back[y, x].tolist()
        assert numbers(value(page, "reverse")) == pytest.approx([u, v, math.hypot(u, v)], abs=6e-4)
        if np.isnan(error[y, x]):
            assert value(page, "error") == "leaves the frame"
        else:
            assert numbers(value(page, "error")) == pytest.approx([error[y, x]], abs=0.03)
        rgb = dataset.frames(key, [frame])[0, y, x]
        assert numbers(value(page, "frame")) == pytest.approx(rgb, abs=3)


def test_where_fields_lie_and_where_there_is_none(opened: Opened, url: str) -> None:
    page = opened(url + address(KEY, t=11, panels="frame.color.reverse"))

    def said() -> list[str]:
        return list(
            page.eval_on_selector_all(
                ".panel",
                """all => all.map(one => [".where", ".note"].map(
                    name => one.querySelector(name).textContent).join("|"))""",
            )
        )

    settled(page, 11)
    none = "No flow leaves the last frame"
    assert said() == ["11|", f"|{none}", f"|{none}"]
    page.keyboard.press("ArrowLeft")
    settled(page, 10)
    assert said() == ["10|", "10 → 11|", "11 → 10|"]
    page.keyboard.press("d")
    page.wait_for_timeout(150)
    assert said() == ["10|", "10 → 9|", "9 → 10|"]
    page.keyboard.press("Home")
    settled(page, 0)
    none = "No flow leads back from the first frame"
    assert said() == ["0|", f"|{none}", f"|{none}"]


ODD_SETS = {
    "no-rgb": dataclasses.replace(CONFIG, encode=EncodeSpec(keep_rgb=False)),
    "forward-alone": dataclasses.replace(CONFIG, encode=EncodeSpec(directions=("forward",))),
    "backward-alone": dataclasses.replace(CONFIG, encode=EncodeSpec(directions=("backward",))),
    "step-2": dataclasses.replace(
        CONFIG, flow=FlowSpec("farneback", step=2, bound_px=10, quantizer="centered")
    ),
    "floor": dataclasses.replace(CONFIG, flow=FlowSpec("farneback", quantizer="floor")),
}


@pytest.mark.parametrize("name", ODD_SETS)
def test_other_data_sets(opened: Opened, tmp_path: Path, name: str) -> None:
    config = ODD_SETS[name]
    dataset = open_dataset(make_dataset(tmp_path, config, CLIPS[:1]))
    direction = config.encode.directions[0]
    with opened.serving(dataset) as url:
        page = opened(url + address(KEY, t=5, panels=ALL_PANELS))
        settled(page, 5)
        shown = page.eval_on_selector_all(".panel", "all => all.map(one => one.dataset.panel)")
        both = len(config.encode.directions) == 2
        expected = ["color", "x", "y", "arrows", *(["reverse", "error"] if both else [])]
        assert shown == (["frame", *expected] if config.encode.keep_rgb else expected)
        assert page.is_visible("#directions") == both
        field = 5 if direction == "forward" else 5 - config.flow.step
        flow = dataset.flow(KEY, field, 1, direction)[0]
        color = flow_to_color(flow, float(page.input_value("#scale")))
        assert np.abs(pixels(page, "color").astype(int) - color).max() <= 2
        hover(page, "x", 40, 30, CLIPS[0])
        assert numbers(value(page, "x"))[0] == pytest.approx(flow[30, 40, 0], abs=6e-4)
        other = 5 + config.flow.step * (1 if direction == "forward" else -1)
        assert page.text_content("[data-panel=color] .where") == f"5 → {other}"
    dataset.close()


def test_a_damaged_picture_stops_nothing(
    opened: Opened, dataset: FlowDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(dataset.location, out)
    video = dataset.videos[KEY]
    sizes = dataset.metadata(KEY)["offsets"]["flow_x"]
    with open(out / f"shards/{video.shard:06d}.tar", "r+b") as file:
        file.seek(video.members["flow_x"][0] + int(sizes[3]))
        file.write(b"\0" * 200)
    damaged = open_dataset(out)
    with opened.serving(damaged) as url:
        page = opened(url + address(KEY, t=3))
        settled(page, 3)
        assert page.text_content("[data-panel=x] .note") == "flow_x 3 is not a JPEG"
        assert page.text_content("[data-panel=frame] .note") == ""
        page.keyboard.press("ArrowRight")
        settled(page, 4)
        assert page.text_content("[data-panel=x] .note") == ""
        (out / f"shards/{video.shard:06d}.tar").write_bytes(b"")
        damaged.close()
        damaged._metadata.clear()
        page.keyboard.press("ArrowDown")
        until(page, "!document.querySelector('#notice').hidden")
        assert "cannot be read" in page.text_content("#notice")
    damaged.close()
    # That is what Chromium writes for a status of 500.
    assert all("500" in line for line in opened.said)
    opened.said.clear()


# ---- playing


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


def test_the_address_holds_what_is_shown(opened: Opened, url: str) -> None:
    page = opened(url + address(KEY, t=2))
    settled(page, 2)
    hover(page, "color", 50, 40, CLIPS[0])
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    assert page.text_content("#point") == "x 50  y 40"
    page.focus("[data-panel=color] .stage")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    assert page.text_content("#point") == "x 51  y 39"
    page.fill("#scale", "2.5")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("d")
    page.keyboard.press("3")
    page.click("th button:text('Key')")
    values = fragment(page)
    assert values == {
        "sort": "key",
        "key": KEY,
        "t": "2",
        "panels": "frame.color.y",
        "direction": "backward",
        "scale": "2.5",
        "point": "51.39",
    }
    again = opened(page.url)
    settled(again, 2)
    assert again.text_content("#point") == "x 51  y 39"
    assert value(again, "color") == value(page, "color")
    assert np.array_equal(pixels(again, "color"), pixels(page, "color"))
    for hash_ in ("key=nobody", "key=%00", "t=-5&key=" + quote(KEY, safe=""), "panels=x&sort=zz"):
        page.goto(f"{url}/#{hash_}")
        page.reload()
        until(page, "document.querySelector('#count').textContent !== ''")
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


# ---- looks


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width"), [("desktop", 1280), ("phone", 375)])
def test_themes_and_widths(
    opened: Opened, url: str, theme: str, name: str, width: int, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("FLOWPREP_SCREENSHOTS") or tmp_path)
    page = opened(url, color_scheme=theme, viewport={"width": width, "height": 800})
    overflow = "document.documentElement.scrollWidth"
    page.wait_for_timeout(100)
    assert page.evaluate(overflow) <= width
    page.screenshot(path=folder / f"browse-list-{name}-{theme}.png")
    inks = ["--ink", "--quiet", "--accent", "--fault", "--suspicion", "--note"]
    check_contrasts(page, inks, ["--paper", "--card", "--hover"])
    check_contrasts(page, ["--ink"], ["--pressed"])
    for link in (
        address(KEY, t=4, panels=ALL_PANELS),
        address(escape_key(ODD_NAME), t=4, **{"with": quote("move_down/portrait", safe="")}),
    ):
        page.goto(url + link)
        page.reload()
        settled(page, 4)
        assert page.evaluate(overflow) <= width
        # No panel is cut off at the right, and on a wide screen all of them are in sight.
        boxes = page.eval_on_selector_all(
            ".panel", "all => all.map(p => p.getBoundingClientRect().toJSON())"
        )
        assert len(boxes) >= 7
        assert max(box["right"] for box in boxes) <= width
        assert min(box["width"] for box in boxes) > 60
        if name == "desktop" and "with" not in link:
            bottom = page.evaluate(
                "document.querySelector('#views').getBoundingClientRect().bottom"
            )
            assert max(box["bottom"] for box in boxes) <= bottom + 1
        kind = "compare" if "with" in link else "play"
        page.screenshot(path=folder / f"browse-{kind}-{name}-{theme}.png")
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = [page.evaluate(ground)]
    for _ in range(3):
        page.click("#theme")
        seen.append(page.evaluate(ground))
    assert seen[0] == seen[3]
    assert len(set(seen)) == 2


# ---- other pages, and the token


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><p>other")

    def log_message(self, *_: object) -> None:
        pass


# Another port of the same host is another origin and the same site; another name is another site.
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_another_page_gets_nothing(chromium: Any, url: str, name: str) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        check_another_page(chromium, url, f"http://{name}:{server.server_port}/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check_another_page(chromium: Any, url: str, other: str) -> None:
    context = chromium.new_context()
    page = context.new_page()
    statuses: dict[str, int] = {}
    page.on("response", lambda answer: statuses.__setitem__(answer.url, answer.status))
    page.goto(other)
    got = page.evaluate(
        """async (url) => {
            const read = (path, options) => fetch(url + path, options).then(
                (answer) => answer.text()).catch(() => "refused");
            const image = new Image();
            const shown = new Promise((resolve) => {
                image.onload = () => resolve("shown");
                image.onerror = () => resolve("refused");
            });
            image.src = url + "/stream?key=move_left/a&name=rgb&image";
            const script = document.createElement("script");
            const run = new Promise((resolve) => {
                script.onload = () => resolve("run");
                script.onerror = () => resolve("refused");
            });
            script.src = url + "/streams.js";
            document.body.append(script);
            const frame = document.createElement("iframe");
            frame.src = url + "/?frame";
            document.body.append(frame);
            await new Promise((resolve) => { frame.onload = resolve; });
            return [await read("/api/videos"), await read("/api/dataset", { mode: "no-cors" }),
                await read("/", { method: "POST" }), await shown, await run];
        }""",
        url,
    )
    assert got[0] == got[3] == got[4] == "refused"
    assert got[1] in ("", "refused")
    assert got[2] == "refused"
    # What reached the server was refused there, and not by the browser alone.
    refused = {name: code for name, code in statuses.items() if name.startswith(url)}
    assert refused[f"{url}/?frame"] == 403
    assert set(refused.values()) <= {403, 405}
    context.close()


def test_token(opened: Opened, dataset: FlowDataset) -> None:
    with opened.serving(dataset, token="token-of-this-test") as url:
        page = opened(f"{url}/?token=token-of-this-test")
        assert page.url == f"{url}/"
        page.click(f"#table td.key:text-is('{KEY}')")
        settled(page, 0)
        assert pixels(page, "color").std() > 0
        assert page.evaluate("document.cookie") == ""
        page.reload()
        settled(page, 0)
