"""Equal problems are one entry: a count, the first whole, and what the next ones are about."""

from __future__ import annotations

from flowprep.dataset.problems import sum_up

KEYS = {f"walk/clip{letter}" for letter in "abcdefgh"} | {"solo"}


def test_problems_that_differ_in_their_videos_are_one() -> None:
    problems = [
        f"shards/00000{shard}.tar: walk/clip{letter}: flow_x has {3 + shard} JPEGs, not 11"
        for shard, letter in enumerate("abcdef")
    ]
    problems.insert(2, "failures.jsonl is missing; run it again")
    groups = sum_up(problems, KEYS)
    assert [group.lines() for group in groups] == [
        [problems[0], "  and 5 more like it: walk/clipb, walk/clipc, walk/clipd, ..."],
        ["failures.jsonl is missing; run it again"],
    ]
    assert sum(1 + len(group.names) for group in groups) == len(problems)


def test_keys_without_numbers_and_files_are_named_too() -> None:
    found = sum_up(["walk/clipa is in no shard", "solo is in no shard"], KEYS)
    assert [group.lines()[1] for group in found] == ["  and 1 more like it: solo"]
    shards = [f"shards/{n:06d}.json is missing; rebuild it" for n in range(30)]
    (group,) = sum_up(shards, KEYS)
    assert group.lines()[1].startswith("  and 29 more like it: shards/000001.json, shards/000002")


def test_unlike_problems_stay_apart() -> None:
    found = sum_up(["walk/clipa is in no shard", "walk/clipa is in two shards"], KEYS)
    assert [group.lines() for group in found] == [
        ["walk/clipa is in no shard"],
        ["walk/clipa is in two shards"],
    ]
    assert sum_up([], KEYS) == []
