"""Estimators of the gradient: policies for where the negative chains start and what they keep."""

from gibbsian.estimators.base import Estimator, Phases, Stacked, from_spec, posterior
from gibbsian.estimators.cd import CD
from gibbsian.estimators.pcd import PCD
from gibbsian.estimators.ptt import PTT

__all__ = ["CD", "PCD", "PTT", "Estimator", "Phases", "Stacked", "from_spec", "posterior"]
