"""Thumbnails: what they show, how many are kept, and that only seen rows ask for theirs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowprep.config import EncodeSpec
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import VideoList
from flowprep.look.browse.thumbnails import HEIGHT_PX, WIDTH_PX, Thumbnails
from tests.look.browse.browsing import CLIPS, CONFIG, Client, make_dataset
from tests.look.browse.opening import Opened
from tests.look.browse.test_list import long_dataset
from tests.look.chromium import keys, until


def decoded(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def test_a_picture_is_the_middle_frame_in_its_shape(client: Client, dataset: FlowDataset) -> None:
    for video in dataset.videos:
        answer = client.get("/thumbnail", key=video.key)
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
        image = decoded(answer.body)
        height, width = image.shape[:2]
        assert width == WIDTH_PX or height == HEIGHT_PX
        assert width <= WIDTH_PX
        assert height <= HEIGHT_PX
        assert width / height == pytest.approx(video.width / video.height, rel=0.05)
        frame = dataset.frames(video.key, [video.num_frames // 2])[0]
        wanted = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        # JPEG's own error.
        assert np.abs(image.astype(int) - wanted).mean() < 12


def test_without_frames_it_is_the_flow(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, encode=EncodeSpec(keep_rgb=False))
    dataset = open_dataset(make_dataset(tmp_path, config, CLIPS[:1]))
    image = decoded(Thumbnails(dataset).get(dataset.videos[0].key))
    # All moves left, whose color is cyan.
    red, green, blue = image.reshape(-1, 3).mean(0)
    assert red < green - 20
    assert red < blue - 20
    dataset.close()


def test_the_last_ones_are_kept_up_to_a_limit(
    dataset: FlowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    draw = Thumbnails._draw

    def counted(self: Thumbnails, key: str) -> object:
        drawn.append(key)
        return draw(self, key)

    monkeypatch.setattr(Thumbnails, "_draw", counted)
    every = [video.key for video in dataset.videos]
    first = Thumbnails(dataset)
    pictures = {key: first.get(key) for key in every}
    assert {key: first.get(key) for key in every} == pictures
    assert drawn == every
    limit = sum(len(pictures[key]) for key in every[-2:])
    few = Thumbnails(dataset, limit)
    for key in every:
        few.get(key)
        assert few.num_bytes <= limit
    drawn.clear()
    few.get(every[-1])
    assert drawn == []
    few.get(every[0])
    assert drawn == [every[0]]


def test_unknown_keys_and_damage_are_refused(client: Client, dataset: FlowDataset) -> None:
    assert client.get("/thumbnail", key="../../etc/passwd").status == 404
    assert client.get("/thumbnail").status == 404


def test_the_list_shows_them(opened: Opened, url: str, dataset: FlowDataset) -> None:
    page = opened(url)
    loaded = "[...document.querySelectorAll('#table .thumbnail')].filter((one) => one.naturalWidth)"
    until(page, f"{loaded}.length === {len(dataset.videos)}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # A row that is drawn again keeps its picture.
    page.click("th button:text('Frames')")
    page.click("th button:text('Key')")
    page.wait_for_timeout(400)
    assert page.evaluate(f"{loaded}.length") == len(dataset.videos)
    assert not [one for one in asked if "thumbnail" in one]


def test_only_rows_that_are_seen_ask(opened: Opened, dataset: FlowDataset) -> None:
    with opened.serving(long_dataset(dataset, 10_000)) as url:
        page = opened(url)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(600)
        # A long way in many steps: what flies past asks for nothing.
        page.evaluate(
            """() => new Promise((done) => {
                const box = document.getElementById("scroller");
                let step = 0;
                const move = () => {
                    box.scrollTop = 4000 * ++step;
                    if (step < 60) requestAnimationFrame(move); else done();
                };
                move();
            })"""
        )
        page.wait_for_timeout(1200)
        seen = keys(page)
        wanted = [one for one in asked if "/thumbnail" in one]
        assert 0 < len(wanted) < 100
        assert len(seen) < 80
        assert any(seen[len(seen) // 2].replace("/", "%2F") in one for one in wanted)
    # These videos are not really there.
    assert all("500" in line for line in opened.said)
    opened.said.clear()


def test_long_keys_are_cut_in_the_middle(opened: Opened, dataset: FlowDataset) -> None:
    long = long_dataset(dataset, 3)
    videos = [
        dataclasses.replace(video, key=f"{'a_very_long_folder/' * 6}clip_g{number:02d}_c01")
        for number, video in enumerate(long.videos)
    ]
    long.videos = VideoList(videos)
    with opened.serving(long) as url:
        page = opened(url)
        assert keys(page) == [video.key for video in videos]
        shown = page.evaluate(
            """[...document.querySelectorAll("#table td.key")].map((cell) => {
                const [start, end] = cell.querySelectorAll(".cut span");
                const box = cell.getBoundingClientRect(), last = end.getBoundingClientRect();
                return [end.textContent, start.scrollWidth > start.clientWidth,
                        last.right <= box.right && last.width >= end.scrollWidth];
            })"""
        )
        assert [(end[-7:], is_cut, is_whole) for end, is_cut, is_whole in shown] == [
            (f"g{number:02d}_c01", True, True) for number in range(3)
        ]
    opened.said.clear()
