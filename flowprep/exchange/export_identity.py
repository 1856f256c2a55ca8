"""What an export says of itself in `flowprep.json`, and whether DEST is this export."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flowprep.dataset.read import FlowDataset
from flowprep.differences import Differences, find_differences, flatten, mismatch
from flowprep.errors import DatasetError
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.export_state import EXPORT_VERSION, ExportState
from flowprep.exchange.formats import TEMPORARY_FOLDER
from flowprep.exchange.layouts import EXPORT_FILE
from flowprep.urls import absolute, as_path

__all__ = ["check_folder", "export_identity", "stored_identity"]

# The options of the command by the names in flowprep.json.
_OPTIONS = {
    "layout": "--layout",
    "file_format": "--format",
    "values": "--values",
    "direction": "--direction",
    "keys": "--keys",
    "splits": "--split",
    "classes": "--class",
    "videos_per_shard": "--shard-size",
    "flat": "--flat",
    "clip_length": "--clip-length",
    "labels": "--labels",
    "labels_sha256": "labels of OUT",
    "class_names": "class names of OUT",
    "source": "OUT",
}


def export_identity(dataset: FlowDataset, spec: ExportSpec, has_rgb: bool) -> dict[str, Any]:
    """Returns the content of `flowprep.json`, which must be equal in later runs into the folder."""
    header = dataset.header
    config = header.config.to_dict()
    location = dataset.location
    return {
        "format": "flowprep-export",
        "format_version": EXPORT_VERSION,
        "layout": spec.layout,
        "file_format": spec.format,
        "values": spec.values,
        "direction": spec.direction,
        "has_rgb": has_rgb,
        "keys": list(spec.keys),
        "splits": list(spec.splits),
        "classes": list(spec.classes),
        "videos_per_shard": spec.videos_per_shard if spec.format == "webdataset" else None,
        # None where they are off, as in exports before they were there.
        "flat": spec.flat or None,
        "clip_length": spec.clip_length,
        "source": absolute(as_path(location)),
        "implementation": header.implementation,
        "origin": dict(header.origin),
        "flow": config["flow"],
        "decode": config["decode"],
        "encode": config["encode"],
        "class_names": list(dataset.class_names),
        "labels": dataset.labels_name,
        "labels_sha256": dataset.labels_sha256,
    }


def stored_identity(dest: Path, state: ExportState) -> dict[str, Any] | None:
    """Returns `flowprep.json` of an export to `dest`, or None if there is none.

    flowprep 0.1.0 wrote it into `dest`. Raises DatasetError if it is damaged or newer than this.
    """
    for path in (state.file(EXPORT_FILE), dest / EXPORT_FILE):
        if not path.is_file():
            continue
        try:
            stored = json.loads(path.read_bytes())
            flatten(stored)
            version = stored["format_version"]
        except (ValueError, AttributeError, RecursionError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{path} is damaged: {type(error).__name__}: {error}; choose another folder"
            ) from error
        if version not in range(1, EXPORT_VERSION + 1):
            raise DatasetError(
                f"{path} has the format version {version}, and this flowprep knows 1 to "
                f"{EXPORT_VERSION}; choose another folder, or install a newer flowprep"
            )
        return dict(stored)
    return None


def check_folder(
    folder: Path, state: ExportState, stored: dict[str, Any] | None, identity: dict[str, Any]
) -> None:
    """Checks that DEST is this export, or new. Raises DatasetError for any other folder."""
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"DEST {folder} is a file; choose a new or empty folder")
    if stored is None:
        if folder.is_dir() and (foreign := sorted(set(os.listdir(folder)) - {TEMPORARY_FOLDER})):
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise DatasetError(
                f"DEST {folder} is not empty and not an export of flowprep (it holds {shown}, and "
                f"{state.file(EXPORT_FILE)} does not exist); choose a new or empty folder, or give "
                "--lists as before"
            )
        return
    differing = find_differences(flatten(stored), flatten(identity))
    differing.pop("format_version", None)
    # Classes and shards may have been added since the earlier run.
    known = stored.get("class_names")
    if "class_names" in differing and known == identity["class_names"][: len(known or [])]:
        del differing["class_names"]
    if differing:
        raise mismatch(
            f"{folder} holds another export",
            _by_option(differing),
            ("there", "in this run"),
            "Choose another folder for DEST.",
        )


def _by_option(differing: Differences) -> Differences:
    """Returns the differences by the options that make them."""
    named: Differences = {}
    for name, (there, here) in differing.items():
        if name == "has_rgb":
            named["RGB frames"] = tuple("--rgb" if has else "--no-rgb" for has in (there, here))  # type: ignore[assignment]
        else:
            named[_OPTIONS.get(name, name)] = (there, here)
    return named
