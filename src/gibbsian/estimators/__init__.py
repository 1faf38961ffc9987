"""Estimators of the gradient: policies for where the negative chains start and what they keep."""

from gibbsian.estimators.base import Estimator, Phases, from_spec, positive_phase
from gibbsian.estimators.cd import CD
from gibbsian.estimators.pcd import PCD

__all__ = ["CD", "PCD", "Estimator", "Phases", "from_spec", "positive_phase"]
