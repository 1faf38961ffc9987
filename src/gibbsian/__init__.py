"""gibbsian: energy-based generative models that tell you when to trust their samples.

>>> import gibbsian as gb
>>> machine = gb.rbm(visible=64, hidden=32)
"""

from gibbsian import data, trajectory
from gibbsian.assessment import certify, evaluate
from gibbsian.associative import AssociativeMemory
from gibbsian.belief import DeepBeliefNetwork
from gibbsian.connections import Connection, Dense
from gibbsian.errors import DataError, GibbsianError, GibbsianWarning, RunError, TrainingError
from gibbsian.estimators import CD, FPCD, PCD, PTT, Estimator, Jarzynski
from gibbsian.machine import BoltzmannMachine, Clamp
from gibbsian.models import (
    dbm,
    gaussian_rbm,
    hopfield,
    layered,
    rbm,
    read,
    relu_rbm,
    save,
    softmax_rbm,
)
from gibbsian.noise import remove_noise
from gibbsian.samplers import (
    Driven,
    Gibbs,
    Langevin,
    RatesFPCD,
    Sampler,
    TemperedTransitions,
    Tempering,
    TrajectoryTempering,
    annealed,
    sample,
)
from gibbsian.settings import Settings
from gibbsian.trained import Trained, load, resume, train
from gibbsian.trajectory import Trajectory
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin, Units

__version__ = "0.1.0"

__all__ = [
    "CD", "FPCD", "PCD", "PTT", "AssociativeMemory", "Bernoulli", "Binomial", "BoltzmannMachine", "Clamp",
    "Connection", "DataError", "DeepBeliefNetwork", "Dense", "Driven", "Estimator", "Gaussian", "Gibbs",
    "GibbsianError", "GibbsianWarning", "Jarzynski", "Langevin", "Mixed", "RatesFPCD", "ReLU", "RunError",
    "Sampler", "Settings", "Softmax", "Spin", "TemperedTransitions", "Tempering", "Trained",
    "TrainingError", "Trajectory", "TrajectoryTempering", "Units", "annealed", "certify", "data", "dbm",
    "evaluate", "gaussian_rbm", "hopfield", "layered", "load", "rbm", "read", "relu_rbm", "remove_noise",
    "resume", "sample", "save", "softmax_rbm", "train", "trajectory",
]  # fmt: skip
