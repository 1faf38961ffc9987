"""Samplers are kernels: `init` makes a visible state, `step` moves it; one algorithm a file."""

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

__all__ = ["STARTS", "ChainState", "Gibbs", "Info", "Sampler", "Samples", "run", "sample", "start"]
