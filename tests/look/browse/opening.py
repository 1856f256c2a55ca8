"""Pages of `flowprep browse` in a real browser (tests/look/chromium.py), and what they show."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from tests.look.browse.browsing import Clip, served
from tests.look.chromium import until

ALL_PANELS = "frame.color.x.y.arrows.reverse.error"

DESKTOP = {"width": 1280, "height": 800}


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
