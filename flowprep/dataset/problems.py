"""Sums up problems that are equal but for the video, the shard or the number that they name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

__all__ = ["EqualProblems", "sum_up"]

_NUM_EXAMPLES = 3
_WORD = re.compile(r"[^\s,;:()]+")


@dataclass
class EqualProblems:
    """Problems that differ only in what they name."""

    first: str
    names: list[str] = field(default_factory=list)
    """What each of the others is about: its video, or else its file."""

    def lines(self) -> list[str]:
        """Returns the first problem; a second line counts the others and names the first ones."""
        if not self.names:
            return [self.first]
        named = list(dict.fromkeys(name for name in self.names if name))[:_NUM_EXAMPLES]
        more = ", ..." if len(self.names) > len(named) else ""
        examples = f": {', '.join(named)}{more}" if named else ""
        return [self.first, f"  and {len(self.names):,} more like it{examples}"]


def sum_up(problems: Sequence[str], keys: Collection[str]) -> list[EqualProblems]:
    """Returns the problems in their order, equal ones together. `keys` are those of all videos."""
    groups: dict[str, EqualProblems] = {}
    for problem in problems:
        found = _WORD.findall(problem)
        pattern = _WORD.sub(lambda word: "*" if _is_name(word[0], keys) else word[0], problem)
        if (group := groups.get(pattern)) is None:
            groups[pattern] = EqualProblems(problem)
            continue
        known = set(_WORD.findall(group.first))
        fresh = [word for word in found if word not in known]
        about = [word for word in fresh if word in keys] or fresh
        group.names.append(about[0].rstrip(".") if about else "")
    return list(groups.values())


def _is_name(word: str, keys: Collection[str]) -> bool:
    """Whether a word names one of many things: a video, a file of a shard, or a number."""
    return word in keys or any(character.isdigit() for character in word)
