"""Samplers are kernels: `init` makes a visible state, `step` moves it; one algorithm a file."""

from gibbsian.samplers.annealed import annealed
from gibbsian.samplers.base import (
    STARTS,
    ChainState,
    Info,
    Sampler,
    Samples,
    run,
    sample,
    start,
)
from gibbsian.samplers.gibbs import Gibbs
from gibbsian.samplers.langevin import Langevin
from gibbsian.samplers.rates import RatesFPCD
from gibbsian.samplers.tempering import Tempering
from gibbsian.samplers.trajectory import TrajectoryTempering

__all__ = [
    "STARTS", "ChainState", "Gibbs", "Info", "Langevin", "RatesFPCD", "Sampler", "Samples",
    "Tempering", "TrajectoryTempering", "annealed", "run", "sample", "start",
]  # fmt: skip
