"""The list of videos in a real browser: sorting, filters, findings, and many rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.video_list import StoredVideo, VideoList
from flowprep.inputs.keys import escape_key
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.storage import Storage
from tests.look.browse.browsing import ODD_NAME
from tests.look.browse.opening import Opened, address, fragment, settled
from tests.look.chromium import keys, most_rows, scroll_far, until, watch_rows

NUM_ROWS = 100_000


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
