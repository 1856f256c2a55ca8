"""A data set with everything odd that a page about it may meet, and a server for it."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.read import FlowDataset
from flowprep.inputs.keys import escape_key
from flowprep.inputs.manifest import Manifest
from flowprep.inputs.video import Video
from flowprep.look.browse.background import BackgroundSurvey
from flowprep.look.browse.server import make_app, make_server
from flowprep.synthetic import action_scene, write_video

CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize("none", short_px=None)),
    FlowSpec("farneback", bound_px=8.0),
    EncodeSpec(jpeg_quality=100, rgb_jpeg_quality=100, videos_per_shard=2),
)
CLASSES = ("move_left", "move_down", "zoom_in")
ODD_NAME = "odd/Grüße. 50% & <b>日本\"'#?=.."


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video of the data set."""

    name: str
    action: str
    num_frames: int = 12
    width: int = 96
    height: int = 72
    split: str | None = "train"


CLIPS = [
    Clip("move_left/a", "move_left"),
    Clip("move_left/b", "move_left", num_frames=8, split="test"),
    Clip("move_down/portrait", "move_down", width=48, height=80),
    Clip("zoom_in/tiny", "zoom_in", width=18, height=34),
    Clip("zoom_in/pair", "zoom_in", num_frames=2),
    Clip(ODD_NAME, "move_down"),
]


def make_dataset(folder: Path, config: ExtractConfig = CONFIG, clips: list[Clip] = CLIPS) -> Path:
    """Makes the data set in `folder/out`."""
    videos = []
    for seed, clip in enumerate(clips):
        path = folder / f"{seed}.mp4"
        scene = action_scene(
            clip.action,
            num_frames=clip.num_frames,
            width=clip.width,
            height=clip.height,
            seed=seed,
        )
        write_video(path, (scene.frame(t) for t in range(clip.num_frames)))
        label = (CLASSES.index(clip.action),)
        videos.append(Video(escape_key(clip.name), str(path), label, clip.split))
    manifest = Manifest(videos=tuple(videos), class_names=CLASSES, num_ignored_files=0, notes=())
    flowprep.extract(manifest, folder / "out", config, executor="inline")
    return folder / "out"


@contextlib.contextmanager
def served(
    dataset: FlowDataset,
    *,
    survey: BackgroundSurvey | None = None,
    token: str | None = None,
) -> Iterator[str]:
    """Yields the base URL of a real server on a loopback port; it has two names."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
    server = make_server(make_app(dataset, allowed_hosts=hosts, token=token, survey=survey))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Answer:
    """One answer, read to its end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self) -> str:
        body = self.body
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return body.decode()

    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """Asks a server, with paths and headers as they stand."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        self.cookie = ""

    def get(
        self,
        path: str,
        headers: Mapping[str, str | bytes] | list[tuple[str, str | bytes]] = (),  # type: ignore[assignment]
        *,
        method: str = "GET",
        **query: str,
    ) -> Answer:
        given = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        if query:
            path += "?" + urlencode(query)
        connection = http.client.HTTPConnection(self.host, timeout=300)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if "host" not in dict(given):
                connection.putheader("host", self.host)
            if self.cookie and "cookie" not in dict(given):
                connection.putheader("cookie", self.cookie)
            for name, value in given:
                connection.putheader(name, value)
            connection.endheaders()
            answer = Answer(connection.getresponse())
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer
