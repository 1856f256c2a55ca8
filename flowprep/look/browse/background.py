"""Gathers findings and statistics of a data set in the background while somebody browses it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Literal

from flowprep.dataset.read import FlowDataset
from flowprep.look.findings.checks import CLIPPED_SHARE
from flowprep.look.findings.kinds import KINDS, Finding
from flowprep.look.report.survey import NUM_SAMPLED, DatasetSurvey

__all__ = ["BackgroundSurvey", "SurveyStage"]

SurveyStage = Literal["off", "statistics", "pixels", "done", "stopped"]

_log = logging.getLogger(__name__)

# An open page sees new results after this share of the videos.
_PUBLISH_SHARE = 0.1
_PUBLISH_LEAST = 500


class BackgroundSurvey:
    """Collects the findings of `make_report` as they appear. A separate thread does the reading.

    It first reads the stored statistics of every video, then the pixels of `num_sampled` videos.
    `version` grows when there is more to show, so that a page need not fetch everything every
    second.
    """

    def __init__(self, dataset: FlowDataset, num_sampled: int = NUM_SAMPLED) -> None:
        self._dataset = dataset
        self._num_sampled = num_sampled
        self._survey = DatasetSurvey(dataset, CLIPPED_SHARE)
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._stage: SurveyStage = "off"
        self._num_done = self._num_steps = 0
        self._version = 0
        count = len(dataset.videos)
        # Indexed by the video's position in the data set.
        self._numbers: dict[str, list[float | None]] = {
            name: [None] * count for name in ("mean_px", "max_px", "clipped", "blank")
        }
        self._kinds: list[int] = [0] * count
        self._findings: dict[str, list[Finding]] = {}
        self._num_indexed = 0
        self._bits = {kind: 1 << bit for bit, kind in enumerate(KINDS)}

    def start(self) -> None:
        """Starts the reading."""
        self._stage = "statistics"
        self._thread = threading.Thread(target=self._run, name="flowprep-survey", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops the reading, and waits until it has stopped."""
        self._is_stopping.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Waits until everything is read."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def progress(self) -> dict[str, Any]:
        """Returns the stage, the number of steps done and in total, and the version, as JSON."""
        with self._lock:
            return {
                "stage": self._stage,
                "done": self._num_done,
                "total": self._num_steps,
                "version": self._version,
            }

    def columns(self) -> dict[str, Any]:
        """Returns one list for each statistic, by position. Values not known yet are None.

        `mean_px` and `max_px` are in px, and `clipped` and `blank` in percent. Bit n of `findings`
        stands for the n-th of `KINDS`.
        """
        with self._lock:
            values: dict[str, Any] = {name: list(values) for name, values in self._numbers.items()}
            return values | {"findings": list(self._kinds), "version": self._version}

    def findings(self, key: str) -> Sequence[Finding]:
        """Returns the findings about one video that are known so far, the gravest first."""
        with self._lock:
            found = list(self._findings.get(key, ()))
        return sorted(found, key=lambda finding: self._bits[finding.kind])

    def _run(self) -> None:
        try:
            self._read()
        except Exception:
            _log.exception("the survey of %s stopped", self._dataset.location)
            self._set_stage("stopped", 0)

    def _read(self) -> None:
        survey, videos = self._survey, self._dataset.videos
        publish_each = max(_PUBLISH_LEAST, int(_PUBLISH_SHARE * len(videos)))
        self._set_stage("statistics", len(videos))
        for position, video in enumerate(videos):
            if self._is_stopping.is_set():
                return
            num_rows = len(survey.rows)
            survey.read_statistics(video)
            with self._lock:
                if len(survey.rows) > num_rows:
                    row = survey.rows[-1]
                    self._numbers["mean_px"][position] = round(row.mean_px, 2)
                    self._numbers["max_px"][position] = round(row.max_px, 1)
                    self._numbers["clipped"][position] = round(100 * row.clipped_share, 3)
                    self._numbers["blank"][position] = round(100 * row.blank_share, 1)
                self._index_findings()
                self._num_done = position + 1
                self._version += self._num_done % publish_each == 0
        chosen = survey.choose(self._num_sampled)
        self._set_stage("pixels", len(chosen))
        for number, key in enumerate(chosen):
            if self._is_stopping.is_set():
                return
            survey.read_sample(key)
            with self._lock:
                self._index_findings()
                self._num_done = number + 1
        survey.compare_videos()
        with self._lock:
            self._index_findings()
        self._set_stage("done", 0)

    def _set_stage(self, stage: SurveyStage, num_steps: int) -> None:
        with self._lock:
            self._stage = stage
            self._num_done, self._num_steps = 0, num_steps
            self._version += 1

    def _index_findings(self) -> None:
        new = self._survey.findings[self._num_indexed :]
        self._num_indexed += len(new)
        for finding in new:
            self._findings.setdefault(finding.key, []).append(finding)
            self._kinds[self._dataset.videos.position(finding.key)] |= self._bits[finding.kind]
