"""OpenCV's estimators on the CPU: TV-L1, Farneback and DIS.

OpenCV uses threads within a pair. A worker that owns one core calls `cv2.setNumThreads(1)` once
(`flowprep.run.run_job` does), because this setting belongs to the process, not to an estimator.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.flow.base import FlowEstimator
from flowprep.flow.parameters import DISParameters, FarnebackParameters, OpenCVTVL1Parameters

__all__ = ["OpenCVDIS", "OpenCVFarneback", "OpenCVTVL1"]

# TV-L1 and DIS differ between OpenCV 4 and 5 by up to 12 and 19 px in single pixels.
_OPENCV_MAJOR = f"opencv-{cv2.__version__.split('.')[0]}"


class OpenCVTVL1(FlowEstimator):
    """cv2.optflow.DualTVL1OpticalFlow (Zach et al. 2007; Sanchez et al., IPOL 2013)."""

    implementation = _OPENCV_MAJOR

    def __init__(self, parameters: OpenCVTVL1Parameters) -> None:
        self._flow = cv2.optflow.DualTVL1OpticalFlow.create(
            tau=parameters.tau,
            lambda_=parameters.lambda_,
            theta=parameters.theta,
            nscales=parameters.nscales,
            warps=parameters.warps,
            epsilon=parameters.epsilon,
            innnerIterations=parameters.inner_iterations,  # sic, in OpenCV's signature
            outerIterations=parameters.outer_iterations,
            scaleStep=parameters.scale_step,
            gamma=parameters.gamma,
            medianFiltering=parameters.median_filtering,
            useInitialFlow=False,
        )

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self._flow.calc(prev, next, None), dtype=np.float32)  # type: ignore[call-overload]


class OpenCVFarneback(FlowEstimator):
    """cv2.calcOpticalFlowFarneback (Farneback 2003); equal in OpenCV 4 and 5."""

    implementation = "opencv"

    def __init__(self, parameters: FarnebackParameters) -> None:
        self._parameters = parameters

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        p = self._parameters
        flow = cv2.calcOpticalFlowFarneback(
            prev,
            next,
            None,  # type: ignore[call-overload]
            p.pyr_scale,
            p.levels,
            p.winsize,
            p.iterations,
            p.poly_n,
            p.poly_sigma,
            cv2.OPTFLOW_FARNEBACK_GAUSSIAN if p.gaussian else 0,
        )
        return np.asarray(flow, dtype=np.float32)


class OpenCVDIS(FlowEstimator):
    """cv2.DISOpticalFlow (Kroeger et al. 2016, with variational refinement)."""

    implementation = _OPENCV_MAJOR

    def __init__(self, parameters: DISParameters) -> None:
        presets = {
            "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
            "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
            "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
        }
        self._flow = cv2.DISOpticalFlow.create(presets[parameters.dis_preset])
        for value, setter in (
            (parameters.finest_scale, self._flow.setFinestScale),
            (parameters.patch_size, self._flow.setPatchSize),
            (parameters.patch_stride, self._flow.setPatchStride),
            (parameters.gradient_descent_iterations, self._flow.setGradientDescentIterations),
            (
                parameters.variational_refinement_iterations,
                self._flow.setVariationalRefinementIterations,
            ),
        ):
            if value is not None:
                setter(value)
        self._finest_scale = self._flow.getFinestScale()
        # For smaller frames, OpenCV finds no level that holds a patch, and refuses the frames.
        patch_sides = math.ceil(1.5 * self._flow.getPatchSize())
        self.min_side_px = max(FlowEstimator.min_side_px, patch_sides)

    def __call__(self, prev: NDArray[np.uint8], next: NDArray[np.uint8]) -> NDArray[np.float32]:
        # OpenCV chooses its coarsest level by the longer side. On long, thin frames, the shorter
        # side may then be smaller than a patch, and OpenCV reads outside the image (segmentation
        # fault).
        height, width = prev.shape
        patch_size = self._flow.getPatchSize()
        by_longer_side = int(math.log2(max(height, width) / (4 * patch_size)) + 0.5)
        by_shorter_side = int(math.log2(min(height, width) / patch_size))
        coarsest_scale = max(0, min(by_longer_side, by_shorter_side))
        self._flow.setCoarsestScale(coarsest_scale)
        self._flow.setFinestScale(min(self._finest_scale, coarsest_scale))
        # None: a given field would become the initial flow, and the pairs would depend on each
        # other.
        return np.asarray(self._flow.calc(prev, next, None), dtype=np.float32)  # type: ignore[call-overload]
