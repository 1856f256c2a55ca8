"""Dense optical flow between frames, gray or RGB: one interface, several algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowprep.lazy import lazy_names

if TYPE_CHECKING:
    from flowprep.flow.base import FlowEstimator, FlowPair
    from flowprep.flow.estimators import (
        ESTIMATORS,
        build_estimator,
        create_estimator,
        parse_parameters,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ESTIMATORS": "flowprep.flow.estimators",
            "FlowEstimator": "flowprep.flow.base",
            "FlowPair": "flowprep.flow.base",
            "build_estimator": "flowprep.flow.estimators",
            "create_estimator": "flowprep.flow.estimators",
            "parse_parameters": "flowprep.flow.estimators",
        },
    )

__all__ = [
    "ESTIMATORS",
    "FlowEstimator",
    "FlowPair",
    "build_estimator",
    "create_estimator",
    "parse_parameters",
]
