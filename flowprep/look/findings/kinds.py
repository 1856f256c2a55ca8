"""What can be wrong with a video of a data set, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["KINDS", "Finding", "FindingKind", "Severity"]

Severity = Literal["fault", "suspicion", "note"]


@dataclass(frozen=True)
class FindingKind:
    """One thing that can be wrong, in words for somebody who will have to mend it."""

    title: str
    severity: Severity
    what: str
    why: str
    remedy: str


KINDS: dict[str, FindingKind] = {
    "failed": FindingKind(
        "Not extracted",
        "fault",
        "The video gave nothing; the reason stands with each.",
        "It is missing from the data set, and its class has one example less.",
        "Fetch the file again; `--on-damage cut` keeps what came before the damage. Then run the "
        "same extract command with `--retry-failed`.",
    ),
    "unreadable": FindingKind(
        "Cannot be read",
        "fault",
        "Its part of the shard is damaged.",
        "Training will stop there.",
        "`flowprep verify --deep` says what is wrong; remove the shard and its .json and run the "
        "same extract command again.",
    ),
    "swapped": FindingKind(
        "x and y exchanged",
        "fault",
        "The second frame, moved back by the stored flow, does not become the first; with x and y "
        "exchanged it does.",
        "The network learns that what goes sideways goes up and down.",
        "Extract it again; where many videos have it, look at how their streams were written.",
    ),
    "reversed": FindingKind(
        "Played backwards",
        "fault",
        "The stored forward flow points into the past: its opposite, or the stored backward flow, "
        "explains the frames far better.",
        "Classes that differ in direction alone, such as opening and closing, become each other.",
        "Extract it again; forward and backward streams were exchanged, or the signs were.",
    ),
    "mirrored": FindingKind(
        "One axis has the wrong sign",
        "fault",
        "The stored flow explains the frames only after the sign of x or of y is changed.",
        "Left and right, or up and down, are mistaken for each other.",
        "Look for a flipped picture whose flow was not flipped, or for a y axis that points up; "
        "extract it again.",
    ),
    "zero-flow": FindingKind(
        "No flow, though the picture moves",
        "fault",
        "All fields are zero, and the frames differ.",
        "The network sees an empty input with a label on it.",
        "Extract it again, with other parameters if that does not help.",
    ),
    "black": FindingKind(
        "Black or blank",
        "fault",
        "All sampled frames are one color, or too dark to see anything.",
        "It has a label and no content.",
        "Look at the source; leave it out, or fetch it again.",
    ),
    "clipped": FindingKind(
        "Motion cut off at a bound",
        "fault",
        "Much of the motion sits exactly at the largest value that can be stored.",
        "Fast motion all looks alike.",
        "Extract with a larger `--bound`; see the recommended one.",
    ),
    "invalid": FindingKind(
        "Values that are no numbers",
        "fault",
        "The estimator gave NaN or infinity; they are stored as zero.",
        "Part of the flow is missing.",
        "Extract it again; if it stays, try another algorithm and tell its authors.",
    ),
    "partial": FindingKind(
        "Cut short by damage",
        "fault",
        "The source is damaged, and only what came before the damage is stored.",
        "The action may be missing from it.",
        "Fetch the file again, then run extract with `--retry-failed`.",
    ),
    "concealed": FindingKind(
        "Concealed damage",
        "suspicion",
        "The source is damaged; the decoder made up for what was lost, and went on.",
        "Some pictures are smeared or stand still, and so is their flow.",
        "Fetch the file again, then extract it into a new data set; `--on-damage cut` keeps only "
        "what came before the damage.",
    ),
    "still": FindingKind(
        "A still picture",
        "suspicion",
        "All frames are alike, so there is no motion.",
        "It teaches nothing about motion.",
        "Look at the source; leave it out if it is a slide or a frozen recording.",
    ),
    "duplicates": FindingKind(
        "Repeated frames",
        "suspicion",
        "Many frames are copies of the one before, and the flow between them is next to zero.",
        "Motion stops and jumps; a stack of flow fields holds blanks. The frame rate was likely "
        "raised by repeating frames.",
        "Extract with `--fps` at the rate at which the pictures really change.",
    ),
    "cut": FindingKind(
        "Scene cut",
        "suspicion",
        "Two neighboring frames show different scenes; the flow between them means nothing.",
        "A clip across the cut has one field of noise, and maybe two actions under one label.",
        "Cut the video there, or keep clips on one side.",
    ),
    "blown-up": FindingKind(
        "Blown-up flow",
        "suspicion",
        "Long vectors all over the picture that explain the frames no better than none at all, and "
        "that forward and backward flow do not agree on.",
        "The estimator broke down, as with flashing light, noise or a cut, and noise is what is "
        "learned.",
        "Look at it; leave it out, or try other parameters or another algorithm.",
    ),
    "inconsistent": FindingKind(
        "Forward and backward disagree",
        "suspicion",
        "Going forward and then backward does not lead back to where it began, nearly everywhere, "
        "and the flow explains the frames no better than none at all.",
        "One of the two directions, or both, is wrong.",
        "Look at it; check that both directions are of the same video.",
    ),
    "short": FindingKind(
        "Shorter than its header says",
        "suspicion",
        "Far fewer frames could be decoded than duration and frame rate promise.",
        "The file was probably cut in a download, and the action may be missing.",
        "Compare with the original; fetch it again.",
    ),
    "upside-down": FindingKind(
        "Upside down",
        "suspicion",
        "Turned by 180 degrees it looks like several other videos; as it is, like none.",
        "All motion in it has the wrong direction.",
        "Check the rotation of the source: a tool on the way may have dropped it.",
    ),
    "wrong-label": FindingKind(
        "Maybe a wrong label",
        "suspicion",
        "It moves like another class, and unlike its own. This is a weak hint.",
        "A wrong label teaches the opposite of what it should.",
        "Look at it beside its class.",
    ),
    "camera": FindingKind(
        "Moving camera",
        "note",
        "Most of the picture moves together.",
        "What is learned may be the camera's motion rather than the action's.",
        "Nothing, if training data and use are alike in this; else subtract the mean flow in "
        "training.",
    ),
    "noted": FindingKind(
        "Noted while it was extracted",
        "note",
        "Nothing failed, but the file is not what one would expect.",
        "A guess may be wrong: each note says what was taken for what.",
        "Read the note; the options that it names choose otherwise.",
    ),
}
"""What is looked for, by name, the gravest first."""


@dataclass(frozen=True)
class Finding:
    """Something about one video that a person should look at."""

    kind: str
    """A name in `KINDS`."""
    key: str
    detail: str
    """The numbers behind it, in words."""
    pair: int | None = None
    """The field to look at, if there is one."""
