"""Networks with drawn weights give the logits of their reference implementations.

`scripts/reference_logits` ran the references, in double precision, and stored the numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.learn.models.drawn import draw_clips, drawn_network

REFERENCES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data/reference_logits.json").read_text("utf-8")
)


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_logits_are_the_references(name: str) -> None:
    reference = REFERENCES[name]
    arguments = {**reference["network"], "num_classes": reference["num_classes"]}
    model, rng = drawn_network(arguments, reference["seed"])

    clips = draw_clips(rng, reference["shape"])

    logits = model(*clips)

    assert logits.shape == (len(clips[0]), reference["num_classes"])
    norm = reference["norm"]
    assert logits[0].norm().item() == pytest.approx(norm, rel=1e-5)
    first = reference["first"]
    assert logits[0, : len(first)].tolist() == pytest.approx(first, abs=1e-5 * norm)
