"""The page as a whole in a real browser: its address, its looks, and what other pages get.

FLOWPREP_SCREENSHOTS=FOLDER keeps the screenshots.
"""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from flowprep.dataset.read import FlowDataset
from flowprep.inputs.keys import escape_key
from tests.look.browse.asking import KEY
from tests.look.browse.browsing import CLIPS, ODD_NAME
from tests.look.browse.opening import (
    ALL_PANELS,
    Opened,
    address,
    fragment,
    hover,
    pixels,
    settled,
    value,
)
from tests.look.chromium import check_contrasts, until


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
