"""Estimators of the gradient: policies for where the negative chains start and what they keep."""

from gibbsian.estimators.base import Estimator, Phases, Stacked, from_spec, posterior
from gibbsian.estimators.cd import CD
from gibbsian.estimators.fpcd import FPCD
from gibbsian.estimators.jarzynski import Jarzynski
from gibbsian.estimators.pcd import PCD
from gibbsian.estimators.ptt import PTT

__all__ = [
    "CD", "FPCD", "PCD", "PTT", "Estimator", "Jarzynski", "Phases", "Stacked", "from_spec", "posterior",
]  # fmt: skip
