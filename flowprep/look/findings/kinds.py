"""The findings about a video of a data set, in words for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["KINDS", "Finding", "FindingKind", "Severity"]

Severity = Literal["fault", "suspicion", "note"]


@dataclass(frozen=True)
class FindingKind:
    """One thing that can be wrong, in words for the person who will repair it."""

    title: str
    severity: Severity
    what: str
    why: str
    remedy: str


KINDS: dict[str, FindingKind] = {
    "failed": FindingKind(
        "Not extracted",
        "fault",
        "No flow was stored for the video. Each entry gives the reason.",
        "The video is missing from the data set, and its class has one example less.",
        "Fetch the file again, or keep the part before the damage with `--on-damage cut`. Then run "
        "the same extract command with `--retry-failed`.",
    ),
    "unreadable": FindingKind(
        "Cannot be read",
        "fault",
        "The video's part of the shard is damaged.",
        "Training will stop at this video.",
        "Run `flowprep verify --deep`, which says what is wrong. Then remove the shard and its "
        ".json, and run the same extract command again.",
    ),
    "swapped": FindingKind(
        "x and y exchanged",
        "fault",
        "If the stored flow moves the second frame back, the result is not the first frame. With x "
        "and y exchanged, it is.",
        "The network takes sideways motion for motion up and down.",
        "Extract the video again. If many videos have this problem, check how their streams were "
        "written.",
    ),
    "reversed": FindingKind(
        "Played backwards",
        "fault",
        "The stored forward flow points back in time. Its opposite, or the stored backward flow, "
        "explains the frames far better.",
        "Classes that differ only in direction, such as opening and closing, are exchanged.",
        "Extract the video again. Either the forward and backward streams or the signs were "
        "exchanged.",
    ),
    "mirrored": FindingKind(
        "One axis has the wrong sign",
        "fault",
        "The stored flow explains the frames only after the sign of x or of y is changed.",
        "The network takes left for right, or up for down.",
        "Look for pictures that were flipped without their flow, or for a y axis that points up. "
        "Then extract the video again.",
    ),
    "zero-flow": FindingKind(
        "No flow, although the picture moves",
        "fault",
        "All fields are zero, but the frames differ.",
        "The network sees an empty input with a label.",
        "Extract the video again. If that does not help, take other parameters.",
    ),
    "black": FindingKind(
        "Black or blank",
        "fault",
        "All sampled frames are one color, or too dark to see anything.",
        "The video has a label but no content.",
        "Look at the source. Leave the video out, or fetch it again.",
    ),
    "clipped": FindingKind(
        "Motion clipped at the bound",
        "fault",
        "Much of the motion has the largest value that can be stored.",
        "All fast motion looks the same.",
        "If the present bound cut it off, a larger `--bound` keeps this motion and makes the "
        "levels of all videos coarser: `flowprep report` weighs both. If not, look at the source.",
    ),
    "invalid": FindingKind(
        "Values that are not numbers",
        "fault",
        "The estimator gave NaN or infinity. These values are stored as zero.",
        "Part of the flow is missing.",
        "Extract the video again. If the problem stays, try another algorithm and report it to the "
        "authors of the first one.",
    ),
    "partial": FindingKind(
        "Cut short by damage",
        "fault",
        "The source is damaged, and only the part before the damage is stored.",
        "The stored part may not show the action.",
        "Fetch the file again, then run extract with `--retry-failed`.",
    ),
    "concealed": FindingKind(
        "Concealed damage",
        "suspicion",
        "The source is damaged. The decoder made up the lost parts and went on.",
        "Some pictures are smeared or stand still, and their flow is wrong.",
        "Fetch the file again, then extract it into a new data set. `--on-damage cut` keeps only "
        "the part before the damage.",
    ),
    "still": FindingKind(
        "A still picture",
        "suspicion",
        "All frames are alike, so there is no motion.",
        "The video teaches nothing about motion.",
        "Look at the source. Leave the video out if it is a slide or a frozen recording.",
    ),
    "duplicates": FindingKind(
        "Repeated frames",
        "suspicion",
        "Many frames are copies of the frame before, and the flow between the two is almost zero.",
        "Motion stops and jumps, and some fields in a stack are blank. Probably somebody raised "
        "the frame rate by repeating frames.",
        "Extract with `--fps` at the rate at which the pictures really change.",
    ),
    "cut": FindingKind(
        "Scene cut",
        "suspicion",
        "Two neighboring frames show different scenes. The flow between them means nothing.",
        "A clip across the cut has one field of noise, and maybe two actions with one label.",
        "Cut the video at this frame, or keep clips on one side of it.",
    ),
    "blown-up": FindingKind(
        "Blown-up flow",
        "suspicion",
        "The whole picture has long vectors. They explain the frames no better than no flow at "
        "all, and forward and backward flow disagree.",
        "The estimator failed, maybe because of flashing light, noise or a cut. The network learns "
        "noise.",
        "Look at the video. Leave it out, or try other parameters or another algorithm.",
    ),
    "inconsistent": FindingKind(
        "Forward and backward disagree",
        "suspicion",
        "Almost nowhere does forward flow, followed by backward flow, lead back to the same place. "
        "The flow explains the frames no better than no flow at all.",
        "One of the two directions, or both, is wrong.",
        "Look at the video. Check that both directions come from it.",
    ),
    "short": FindingKind(
        "Shorter than its header says",
        "suspicion",
        "Far fewer frames could be decoded than duration and frame rate promise.",
        "Probably the download was cut off, and the action may be missing.",
        "Compare the file with the original, and fetch it again.",
    ),
    "upside-down": FindingKind(
        "Upside down",
        "suspicion",
        "The video looks like several other videos if it is turned by 180 degrees, and like none "
        "if it is not.",
        "All its motion has the wrong direction.",
        "Check the rotation of the source. Some tool may have dropped the rotation.",
    ),
    "wrong-label": FindingKind(
        "Maybe a wrong label",
        "suspicion",
        "The video moves like another class, and unlike its own. This is a weak hint.",
        "A wrong label teaches the network the wrong class.",
        "Compare the video with other videos of its class.",
    ),
    "camera": FindingKind(
        "Moving camera",
        "note",
        "Most of the picture moves together.",
        "The network may learn the motion of the camera instead of the action.",
        "Do nothing if the camera will also move when the network is used. Otherwise extract "
        "with `--camera-motion homography`, which also removes turns and zooms, or subtract the "
        "mean flow in training (`--subtract-mean-flow`).",
    ),
    "noted": FindingKind(
        "Noted while it was extracted",
        "note",
        "Nothing failed, but the file is unusual.",
        "flowprep had to guess, and the guess may be wrong. Each note says what flowprep did.",
        "Read the note. It names the options that change the guess.",
    ),
}
"""The findings by name, the most serious first."""


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
