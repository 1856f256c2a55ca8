"""How a linear classifier on features is trained and tested."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flowprep.config import check_choice
from flowprep.errors import ConfigError

__all__ = ["CLASSIFIERS", "ClassifierName", "NormalizeName", "ProbeSpec"]

ClassifierName = Literal["svm", "logistic"]
NormalizeName = Literal["auto", "l2", "standard", "none"]

CLASSIFIERS: dict[ClassifierName, str] = {
    "svm": "linear SVM, one against the rest, as for C3D (Tran et al. 2015)",
    "logistic": "softmax regression, as for I3D's fixed features (Carreira and Zisserman 2017)",
}
"""What each classifier is, and where it was published."""


@dataclass(frozen=True)
class ProbeSpec:
    """A linear classifier, trained on one vector for each video: the mean over its windows."""

    classifier: ClassifierName = "svm"
    """`svm`: a linear SVM, one class against the rest (C3D's protocol). `logistic`: softmax
    regression (I3D's protocol for fixed features)."""
    normalize: NormalizeName = "auto"
    """How each video's vector is scaled. `l2`: to length 1, for each stream. `standard`: each
    number to mean 0 and variance 1 over the training videos. `auto`: l2 for svm, standard for
    logistic."""
    c: float | None = 1.0
    """The inverse of the regularization. A smaller number is a stronger one. None: chosen by cross
    validation on the training videos."""
    train_split: str = "train"
    """The videos to train on: train, ..., or `all`."""
    test_split: str = "test"
    """The videos to test on: test, val, ..., or `all`."""
    seed: int = 0
    """Seed of the solver and of the folds of the cross validation."""

    def __post_init__(self) -> None:
        check_choice("classifier", self.classifier, ClassifierName)
        check_choice("normalize", self.normalize, NormalizeName)
        if self.c is not None and not (self.c > 0 and math.isfinite(self.c)):
            raise ConfigError(f"c must be > 0, or cv for a cross validation, got {self.c:g}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be from 0 to 2^32 - 1, got {self.seed}")

    @property
    def scaling(self) -> Literal["l2", "standard", "none"]:
        """How vectors are scaled, with `auto` decided."""
        if self.normalize != "auto":
            return self.normalize
        return "l2" if self.classifier == "svm" else "standard"
