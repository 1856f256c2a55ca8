"""Videos in, a complete and checkable optical-flow data set out.

report = flowprep.extract("videos/", "flow/", flowprep.PRESETS["tsn"])
dataset = flowprep.open_dataset("flow/")
clip = dataset.flow(dataset.videos[0].key, start=0, length=10)  # (10, H, W, 2) float32, px
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowprep._version import __version__
from flowprep.lazy import lazy_names

if TYPE_CHECKING:
    from flowprep.config import (
        DecodeSpec,
        EncodeSpec,
        ExecutorName,
        ExtractConfig,
        FlowSpec,
        RunOptions,
    )
    from flowprep.dataset.quantize import dequantize, quantize
    from flowprep.dataset.read import FlowDataset, open_dataset
    from flowprep.dataset.relabel import LabelReport
    from flowprep.dataset.relabel import label_dataset as label
    from flowprep.errors import FlowprepError, VideoError
    from flowprep.flow.base import FlowEstimator
    from flowprep.flow.estimators import create_estimator
    from flowprep.inputs.manifest import Manifest
    from flowprep.learn.features import extract_features
    from flowprep.look.color import flow_to_color
    from flowprep.look.show import show
    from flowprep.presets import PRESETS
    from flowprep.run.progress import RunReport
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "PRESETS": "flowprep.presets",
            "DecodeSpec": "flowprep.config",
            "EncodeSpec": "flowprep.config",
            "ExtractConfig": "flowprep.config",
            "FlowDataset": "flowprep.dataset.read",
            "FlowEstimator": "flowprep.flow.base",
            "FlowSpec": "flowprep.config",
            "FlowprepError": "flowprep.errors",
            "LabelReport": "flowprep.dataset.relabel",
            "RunOptions": "flowprep.config",
            "RunReport": "flowprep.run.progress",
            "VideoError": "flowprep.errors",
            "create_estimator": "flowprep.flow.estimators",
            "dequantize": "flowprep.dataset.quantize",
            "extract_features": "flowprep.learn.features",
            "flow_to_color": "flowprep.look.color",
            "label": "flowprep.dataset.relabel:label_dataset",
            "open_dataset": "flowprep.dataset.read",
            "quantize": "flowprep.dataset.quantize",
            "show": "flowprep.look.show",
        },
    )

__all__ = [
    "PRESETS",
    "DecodeSpec",
    "EncodeSpec",
    "ExtractConfig",
    "FlowDataset",
    "FlowEstimator",
    "FlowSpec",
    "FlowprepError",
    "LabelReport",
    "RunOptions",
    "RunReport",
    "VideoError",
    "__version__",
    "create_estimator",
    "dequantize",
    "extract",
    "extract_features",
    "flow_to_color",
    "label",
    "open_dataset",
    "quantize",
    "show",
]


def extract(
    videos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Manifest,
    out: str | os.PathLike[str],
    config: ExtractConfig | None = None,
    *,
    executor: ExecutorName | None = None,
    options: RunOptions | None = None,
    urls: bool = True,
    follow_links: bool = True,
) -> RunReport:
    """Extracts `videos` into the data set `out`. A second call continues where the first stopped.

    `videos` is a file, folder, glob, list file, several of these, or a Manifest from
    `flowprep.inputs.manifest.collect_videos`, which also reads UCF101, HMDB51 and Kinetics
    annotations. `urls=False` leaves out the URLs of lists, and `follow_links=False` all that lies
    outside of the named folder; in a Manifest this is decided already. `executor` takes the place
    of that of `options`. Returns the report of the run. The report and `failures.jsonl` list the
    videos that failed. Raises a FlowprepError if nothing can be planned or written.
    """
    import dataclasses

    from flowprep.config import ExtractConfig, RunOptions
    from flowprep.dataset.plan import stored_ranges
    from flowprep.inputs.manifest import Manifest, collect_videos
    from flowprep.run.early import early_worker

    config = config or ExtractConfig()
    options = options or RunOptions()
    if executor is not None:
        options = dataclasses.replace(options, executor=executor)
    if isinstance(videos, Manifest):
        names: Sequence[str | os.PathLike[str]] = ()
    else:
        names = [videos] if isinstance(videos, (str, os.PathLike)) else videos
    with early_worker(options, config.flow, names) as worker:
        from flowprep.run.driver import run_extract

        manifest = (
            videos
            if isinstance(videos, Manifest)
            else collect_videos(
                videos,
                out=out,
                stored_ranges=stored_ranges(out),
                image_fps=config.decode.image_fps,
                urls=urls,
                follow_links=follow_links,
            )
        )
        return run_extract(manifest, os.fspath(out), config, options, worker=worker)
