"""The table of a dry run: how many videos each class has in each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flowprep.inputs.video import Video
from flowprep.words import cut_middle

__all__ = ["count_classes", "table_lines"]

ClassCounts = Mapping[str, Counter[str]]
"""Number of videos for each class and split. An empty name means no class or no split."""

_MAX_ROWS = 20
_NUM_SHOWN = 12
_NAME_WIDTH = 32


def count_classes(videos: Iterable[Video], class_names: Sequence[str]) -> ClassCounts:
    """Counts videos by class and split. A video with several classes counts in each of them."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in class_names}
    for video in videos:
        for label in video.labels or (None,):
            if label is None:
                name = ""
            else:
                name = class_names[label] if label < len(class_names) else str(label)
            counts.setdefault(name, Counter())[video.split or ""] += 1
    return {name: count for name, count in counts.items() if count}


def table_lines(counts: ClassCounts) -> list[str]:
    """Returns the lines of the table, or none if the videos have neither classes nor splits."""
    found = {split for count in counts.values() for split in count}
    splits = sorted(found, key=lambda split: (not split, split))
    if set(counts) <= {""} and splits in ([], [""]):
        return []
    names = [name for name in counts if name]
    shown = names if len(names) <= _MAX_ROWS else names[:_NUM_SHOWN]
    rows = [(cut_middle(name, _NAME_WIDTH), counts[name]) for name in shown]
    if rest := names[len(shown) :]:
        total = Counter[str]()
        for name in rest:
            total.update(counts[name])
        rows.append((f"... {len(rest):,} more classes", total))
    if "" in counts:
        rows.append(("(no class)", counts[""]))
    headings = [split or ("videos" if splits == [""] else "(no split)") for split in splits]
    width = max(len(name) for name in ["class", *(name for name, _ in rows)])
    widths = [max(len(heading), 6) for heading in headings]

    def line(name: str, cells: Iterable[str]) -> str:
        columns = [cell.rjust(size) for cell, size in zip(cells, widths, strict=True)]
        return "    " + "  ".join([name.ljust(width), *columns])

    return [
        line("class", headings),
        *(line(name, (f"{count[split]:,}" for split in splits)) for name, count in rows),
    ]
