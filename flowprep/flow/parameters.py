"""The parameters of each algorithm, with OpenCV's names and defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, get_args

from flowprep.errors import ConfigError
from flowprep.flow.weight_files import is_weights_id

__all__ = [
    "PARAMETERS",
    "BroxParameters",
    "DISParameters",
    "FarnebackParameters",
    "FlowParameters",
    "OpenCVTVL1Parameters",
    "OwnParameters",
    "RAFTParameters",
    "TVL1Parameters",
    "check_algorithm",
    "is_own",
]

DISPreset = Literal["ultrafast", "fast", "medium"]
RAFTModel = Literal["raft_large", "raft_small"]

PyramidFilter = Literal["ncv", "area"]
TVL1Stop = Literal["predicted", "exact"]
Direction = Literal["forward", "backward"]

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

_DIS_PATCH_SIZE = 8
"""The patch size of all three presets."""


class FlowParameters:
    """The parameters of one algorithm; each class is a frozen dataclass that checks itself."""

    takes_weights: ClassVar[bool] = False
    """Whether the parameters name weights, which are a download or a file of the user."""

    @property
    def weights_id(self) -> str | None:
        """`sha256:` and the SHA-256 of the weights, once they are resolved; None if there are none.

        A run sends these weights to its workers (`flowprep.flow.weight_files`).
        """
        return None

    def resolved(self) -> FlowParameters:
        """Returns parameters that mean the same on every machine. A run stores them.

        The driver calls this once, so it may read files and ask the network. Raises ConfigError or
        WeightsError, with the remedy, for weights that cannot be had.
        """
        return self


@dataclass(frozen=True)
class OpenCVTVL1Parameters(FlowParameters):
    """TV-L1 (Zach, Pock and Bischof 2007); defaults of OpenCV's CPU class DualTVL1OpticalFlow."""

    tau: float = 0.25
    """Time step of the dual update."""
    lambda_: float = 0.15
    """Weight of the data term. A smaller weight gives smoother flow."""
    theta: float = 0.3
    """Coupling between the data term and the smoothness term."""
    nscales: int = 5
    """Levels of the image pyramid."""
    warps: int = 5
    """Warps at each level of the pyramid."""
    epsilon: float = 0.01
    """Stop threshold of the iterations."""
    inner_iterations: int = 30
    """Iterations between two median filters."""
    outer_iterations: int = 10
    """Rounds of inner iterations. A median filter runs before each round."""
    scale_step: float = 0.8
    """Ratio between two levels of the pyramid."""
    gamma: float = 0.0
    """Weight of the illumination term. 0 leaves the term out. Only tvl1-opencv has this term."""
    median_filtering: int = 5
    """Side of the median filter: 5, 3, or 1 for none, as in OpenCV's CUDA version."""

    def __post_init__(self) -> None:
        for name in ("tau", "lambda_", "theta", "epsilon"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "> 0")
        for name in ("nscales", "warps", "inner_iterations", "outer_iterations"):
            _check_integer(name, getattr(self, name))
            _check(name, getattr(self, name), getattr(self, name) >= 1, ">= 1")
        _check("scale_step", self.scale_step, 0 < self.scale_step < 1, "> 0 and < 1")
        _check("gamma", self.gamma, self.gamma >= 0, ">= 0")
        _check(
            "median_filtering",
            self.median_filtering,
            self.median_filtering in (1, 3, 5),
            "1 (off), 3 or 5",
        )


@dataclass(frozen=True)
class TVL1Parameters(OpenCVTVL1Parameters):
    """Native TV-L1: OpenCV's parameters and defaults, and how its stop rule is followed."""

    stop: TVL1Stop = "predicted"
    """`exact` checks for convergence after every iteration, like OpenCV. `predicted` runs several
    iterations at once and checks when convergence is expected. It is faster, and sometimes runs one
    iteration more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("stop", self.stop, self.stop in get_args(TVL1Stop), " or ".join(get_args(TVL1Stop)))
        if self.gamma != 0:
            raise ConfigError(
                f"gamma must be 0, got {self.gamma}; the illumination term is in tvl1-opencv"
            )


@dataclass(frozen=True)
class FarnebackParameters(FlowParameters):
    """Farneback (2003); defaults of OpenCV's sample, which mmaction2 and video2dataset use."""

    pyr_scale: float = 0.5
    """Ratio between two levels of the pyramid."""
    levels: int = 3
    """Levels of the pyramid above the full image. Levels with a side below 32 px are left out."""
    winsize: int = 15
    """Side of the averaging window, in pixels."""
    iterations: int = 3
    """Iterations at each level of the pyramid."""
    poly_n: int = 5
    """Side of the neighborhood for the polynomial expansion: 5 or 7 pixels."""
    poly_sigma: float = 1.2
    """Standard deviation of the Gaussian weights in that neighborhood, in pixels."""
    gaussian: bool = False
    """Average with a Gaussian window instead of a box. It is slower and a little more accurate."""

    def __post_init__(self) -> None:
        _check("pyr_scale", self.pyr_scale, 0 < self.pyr_scale < 1, "> 0 and < 1")
        for name in ("levels", "winsize", "iterations"):
            _check_integer(name, getattr(self, name))
            _check(name, getattr(self, name), getattr(self, name) >= 1, ">= 1")
        _check("poly_n", self.poly_n, self.poly_n in (5, 7), "5 or 7")
        _check("poly_sigma", self.poly_sigma, self.poly_sigma > 0, "> 0")


@dataclass(frozen=True)
class BroxParameters(FlowParameters):
    """Brox et al. (2004); names and defaults of OpenCV's CUDA class BroxOpticalFlow."""

    alpha: float = 0.197
    """Weight of smoothness against the data term. A larger weight gives smoother flow."""
    gamma: float = 50.0
    """Weight of the gradient's constancy against that of the gray value."""
    scale_factor: float = 0.8
    """Ratio between two levels of the pyramid."""
    inner_iterations: int = 5
    """Updates of the robust weights at each level."""
    outer_iterations: int = 150
    """Most levels of the pyramid, which ends by itself at a side of 15 px or less."""
    solver_iterations: int = 10
    """Sweeps of the linear solver for each update of the weights."""
    pyramid_filter: PyramidFilter = "ncv"
    """How frames become smaller: as in OpenCV's CUDA code, or by the area of each new pixel, which
    blurs less and comes closer to the truth."""

    def __post_init__(self) -> None:
        _check("alpha", self.alpha, self.alpha > 0, "> 0")
        _check("gamma", self.gamma, self.gamma >= 0, ">= 0")
        _check("scale_factor", self.scale_factor, 0 < self.scale_factor < 1, "> 0 and < 1")
        for name in ("inner_iterations", "outer_iterations", "solver_iterations"):
            _check_integer(name, getattr(self, name))
            _check(name, getattr(self, name), getattr(self, name) >= 1, ">= 1")
        choices = get_args(PyramidFilter)
        _check(
            "pyramid_filter",
            self.pyramid_filter,
            self.pyramid_filter in choices,
            " or ".join(choices),
        )


@dataclass(frozen=True)
class DISParameters(FlowParameters):
    """Dense inverse search (Kroeger et al. 2016). None means the value of the preset."""

    dis_preset: DISPreset = "medium"
    """OpenCV's preset. It sets every parameter below that is not given."""
    finest_scale: int | None = None
    """Finest pyramid level on which flow is computed. 0 is the full image."""
    patch_size: int | None = None
    """Side of a patch, in pixels."""
    patch_stride: int | None = None
    """Distance between neighboring patches, in pixels. At most the patch size."""
    gradient_descent_iterations: int | None = None
    """Iterations of the patch search."""
    variational_refinement_iterations: int | None = None
    """Iterations of the refinement. 0 switches it off."""

    def __post_init__(self) -> None:
        if self.dis_preset not in get_args(DISPreset):
            raise ConfigError(
                f"dis_preset must be one of {', '.join(get_args(DISPreset))}, "
                f"got {self.dis_preset!r}"
            )
        for name, least in (
            ("finest_scale", 0),
            ("patch_size", 4),
            ("patch_stride", 1),
            ("gradient_descent_iterations", 1),
            ("variational_refinement_iterations", 0),
        ):
            value = getattr(self, name)
            if value is not None:
                _check_integer(name, value)
                _check(name, value, value >= least, f">= {least}")
        # If patches do not touch, OpenCV divides by zero and then reads arbitrary addresses.
        patch_size = _DIS_PATCH_SIZE if self.patch_size is None else self.patch_size
        if self.patch_stride is not None and self.patch_stride > patch_size:
            raise ConfigError(
                f"patch_stride must be <= patch_size, {patch_size}, got {self.patch_stride}"
            )


@dataclass(frozen=True)
class RAFTParameters(FlowParameters):
    """RAFT (Teed and Deng, ECCV 2020): torchvision's two networks, and its number of updates."""

    takes_weights = True

    raft_model: RAFTModel = "raft_large"
    """The network. `raft_small` has a fifth of the weights. It is faster and less accurate."""
    raft_weights: str = "DEFAULT"
    """A file of weights, or torchvision's name of weights that are downloaded, such as C_T_SKHT_V2.
    `DEFAULT` is C_T_SKHT_V2, or C_T_V2 for raft_small. The data set stores their SHA-256."""
    num_flow_updates: int = 12
    """How often the network improves the flow. RAFT's own evaluation takes 12 to 32."""

    def __post_init__(self) -> None:
        models = get_args(RAFTModel)
        _check("raft_model", self.raft_model, self.raft_model in models, " or ".join(models))
        is_text = isinstance(self.raft_weights, str) and self.raft_weights != ""
        _check("raft_weights", repr(self.raft_weights), is_text, "a file or a name")
        _check_integer("num_flow_updates", self.num_flow_updates)
        _check("num_flow_updates", self.num_flow_updates, self.num_flow_updates >= 1, ">= 1")

    @property
    def weights_id(self) -> str | None:
        return self.raft_weights if is_weights_id(self.raft_weights) else None

    def resolved(self) -> RAFTParameters:
        if self.weights_id is not None:
            return self
        # It may need PyTorch, which the options and their help do without.
        from flowprep.flow.raft_weights import find_weights

        return replace(self, raft_weights=find_weights(self.raft_model, self.raft_weights))


@dataclass(frozen=True)
class OwnParameters(FlowParameters):
    """The parameters of a user's own estimator. Reading them does not need its module."""

    text: str = "{}"
    """JSON: an object of names and values."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> OwnParameters:
        """Takes parameters by name; raises ConfigError for values that JSON does not have."""
        try:
            return cls(json.dumps(dict(values), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"estimator options must be numbers, texts, booleans, null or lists of these, "
                f"because they are stored with the data: {error}"
            ) from error

    @property
    def values(self) -> dict[str, Any]:
        """The parameters by name."""
        values: dict[str, Any] = json.loads(self.text)
        return values


PARAMETERS: dict[str, type[Any]] = {
    "tvl1": TVL1Parameters,
    "tvl1-opencv": OpenCVTVL1Parameters,
    "farneback": FarnebackParameters,
    "farneback-opencv": FarnebackParameters,
    "brox": BroxParameters,
    "dis": DISParameters,
    "raft": RAFTParameters,
}
"""The parameter class of each algorithm. The keys are the choices of `--algorithm`, and the classes
give the options. `flowprep.flow.estimators.ESTIMATORS` holds the code of each algorithm."""


def is_own(algorithm: str) -> bool:
    """Whether an algorithm is a user's own estimator, `package.module:Class`; imports nothing."""
    return isinstance(algorithm, str) and ":" in algorithm


def check_algorithm(algorithm: str) -> None:
    """Raises ConfigError unless this is a name in PARAMETERS or `package.module:Class`."""
    if algorithm in PARAMETERS:
        return
    if not is_own(algorithm):
        close = get_close_matches(str(algorithm), PARAMETERS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"algorithm must be one of {', '.join(PARAMETERS)}, got {algorithm!r}{hint}"
        )
    module, _, name = algorithm.partition(":")
    parts = [*module.split("."), name]
    if not all(part.isidentifier() for part in parts) or module.endswith(".py"):
        raise ConfigError(
            f"estimator must be package.module:Class, such as my_flow:MyFlow, got {algorithm!r}"
        )


def _check(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name.rstrip('_')} must be {rule}, got {value}")


def _check_integer(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} must be an integer, got {value!r}")
