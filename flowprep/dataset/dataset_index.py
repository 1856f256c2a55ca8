"""Finds the videos of a data set that an annotation means, by names, paths and sources.

DatasetIndex.find (an exact match) -> guess (a likely match) -> suggestion (words for a message)
"""

from __future__ import annotations

import difflib
import functools
import unicodedata
from collections.abc import Sequence

from flowprep.dataset.label_sources import AnnotatedVideo
from flowprep.errors import InputError
from flowprep.inputs.keys import unescape_key
from flowprep.inputs.tree import without_extension
from flowprep.inputs.video import Video
from flowprep.urls import without_query

__all__ = ["DatasetIndex"]

# Ranges that were stored and are read again may differ by this much.
_SAME_SECONDS = 1e-3
# Number of names that are compared to guess which one was meant. More of them take seconds.
_MAX_COMPARED = 20_000


class DatasetIndex:
    """The videos of a data set, indexed by the names that an annotation may use for them."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self.videos = videos
        self.class_folders: frozenset[str] = frozenset()
        self._keys = {video.key: position for position, video in enumerate(videos)}
        # Only few keys contain escapes.
        self._paths = [v.key if "%" not in v.key else unescape_key(v.key) for v in videos]
        self._sources = [without_query(video.source) for video in videos]
        self._by_path = {path: position for position, path in enumerate(self._paths)}
        self._by_name: dict[str, list[int]] = {}
        for position, path in enumerate(self._paths):
            for name in self._names(path, self._sources[position]):
                self._by_name.setdefault(name, []).append(position)
        self._by_loose_name: dict[str, list[int]] | None = None

    @staticmethod
    def _names(path: str, source: str) -> dict[str, None]:
        own, file = path.rpartition("/")[2], source.rpartition("/")[2]
        return dict.fromkeys((own, without_extension(own), file, without_extension(file)))

    def knows(self, name: str) -> bool:
        """Whether the data set holds a video with exactly this name."""
        return bool(self.find(AnnotatedVideo(name, "")))

    def find(self, named: AnnotatedVideo) -> list[int]:
        """Returns the positions of the videos that a line means, or none if there is no such video.

        There are several positions if the data set holds several ranges of the named file. Raises
        InputError if the line may mean either of two videos.
        """
        if named.is_key:
            return [self._keys[named.name]] if named.name in self._keys else []
        name = named.name
        if named.folders:
            # Nearly all videos of a known data set have keys of this form.
            usual = f"{named.folders[0]}/{named.clip or without_extension(name)}"
            if usual in self._by_path:
                return [self._by_path[usual]]
            if named.clip is not None and (found := self._choose(named, named.clip, is_clip=True)):
                return found
        elif named.start_seconds is None and named.end_seconds is None:
            for known in (self._keys, self._by_path):
                if name in known:
                    return [known[name]]
            if (stem := without_extension(name)) in self._by_path:
                return [self._by_path[stem]]
        return self._choose(named, name)

    def _choose(self, named: AnnotatedVideo, name: str, *, is_clip: bool = False) -> list[int]:
        *folders, last = name.split("/")
        for stem in dict.fromkeys((last, without_extension(last))):
            candidates = self._by_name.get(stem, [])
            if found := self._best(named, candidates, folders, is_clip=is_clip):
                return found
        return []

    def guess(self, named: AnnotatedVideo) -> list[int]:
        """Returns the positions of the videos that a line may mean, if `find` found none.

        A name also matches if it differs in letter case, Unicode form or extensions, or if only one
        of the two has a folder.
        """
        if named.is_key:
            return []
        if self._by_loose_name is None:
            self._by_loose_name = {}
            for stem, positions in self._by_name.items():
                self._by_loose_name.setdefault(_loosened(stem), []).extend(positions)
        for name in filter(None, (named.clip, named.name)):
            *folders, last = name.split("/")
            candidates = dict.fromkeys(self._by_loose_name.get(_loosened(last), []))
            is_clip = name == named.clip
            if found := self._best(named, list(candidates), folders, is_clip=is_clip, loose=True):
                return found
        return []

    def _best(
        self,
        named: AnnotatedVideo,
        candidates: Sequence[int],
        folders: Sequence[str],
        *,
        is_clip: bool,
        loose: bool = False,
    ) -> list[int]:
        by_score: dict[int, list[int]] = {}
        for position in candidates:
            score = self._score(named, position, folders, loose)
            if score is not None:
                by_score.setdefault(score, []).append(position)
        if not by_score:
            return []
        best = by_score[max(by_score)]
        if not is_clip:
            best = self._in_range(named, best)
        if len(best) > 1:
            sources = {self._sources[position] for position in best}
            # These may be several ranges of one file, or one clip with two classes.
            if len(sources) > 1:
                keys = " and ".join(self.videos[position].key for position in best[:2])
                raise InputError(
                    f"{named.origin}: two videos of the data set could be {named.name!r}: {keys}; "
                    "name it by more of its path, or by its key"
                )
        return best

    def _in_range(self, named: AnnotatedVideo, positions: list[int]) -> list[int]:
        wanted = (named.start_seconds, named.end_seconds)
        if wanted == (None, None):
            return positions
        same, whole = [], []
        for position in positions:
            video = self.videos[position]
            held = (video.start_seconds, video.end_seconds)
            if held == (None, None):
                whole.append(position)
            elif all(
                (a is None) == (b is None) and abs((a or 0.0) - (b or 0.0)) < _SAME_SECONDS
                for a, b in zip(wanted, held, strict=True)
            ):
                same.append(position)
        return same or whole

    def _score(
        self, named: AnnotatedVideo, position: int, folders: Sequence[str], loose: bool
    ) -> int | None:
        """Returns how well a video's folders fit a line's folders, or None for another video."""
        fit = _loosened if loose else str
        best = None
        for path in (self._paths[position], self._sources[position]):
            around = list(map(fit, path.split("/")[:-1]))
            if named.folders:
                wanted = set(map(fit, named.folders))
                classes = set(map(fit, self.class_folders)) if loose else self.class_folders
                if around and around[-1] in classes and around[-1] not in wanted:
                    return None
                score = sum(folder in wanted for folder in around)
            else:
                given = [fit(folder) for folder in folders if folder not in ("", ".")]
                score = _common_end(given, around)
                # A different part of the path tells apart two videos with the same name.
                if score < min(len(given), len(around)) or (given and not score and not loose):
                    continue
            best = score if best is None else max(best, score)
        return best

    def suggestion(self, named: AnnotatedVideo) -> str:
        """Returns words that name the video that may be meant; empty if none is similar."""
        name = without_extension((named.clip or named.name).rpartition("/")[2])
        stems = list(self._by_name)
        if len(stems) > _MAX_COMPARED:
            stems = [stem for stem in stems if stem[:3] == name[:3] or stem[-6:] == name[-6:]]
        close = difflib.get_close_matches(name, stems[:_MAX_COMPARED], 1, 0.8)
        if not close:
            return ""
        return f" (did you mean {self.videos[self._by_name[close[0]][0]].key}?)"


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    number = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        number += 1
    return number


@functools.lru_cache(maxsize=1 << 16)
def _loosened(name: str) -> str:
    """Returns a name in lower case and one Unicode form, without extensions.

    For example, `Clip.MP4.mkv` becomes `clip`.
    """
    while (shorter := without_extension(name)) != name and shorter:
        name = shorter
    return unicodedata.normalize("NFC", name).casefold()
