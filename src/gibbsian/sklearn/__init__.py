"""scikit-learn estimators: Boltzmann machines in pipelines, on NumPy arrays and sparse matrices.

What is fitted lies in plain arrays (``components_``, ``intercept_hidden_``, …), so estimators are
cloned, pickled and edited like any other; the machine is built from them on demand. Training is the
library's own `Trainer`.
"""

from gibbsian.sklearn.bernoulli import BernoulliRBM
from gibbsian.sklearn.deep import BernoulliDBM
from gibbsian.sklearn.gaussian import GaussianRBM
from gibbsian.sklearn.pretrained import MachineFeatures

__all__ = ["BernoulliDBM", "BernoulliRBM", "GaussianRBM", "MachineFeatures"]
