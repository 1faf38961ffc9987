"""Evaluators: what a machine is worth, and what of it to believe; one idea a file."""

from gibbsian.evaluators.ais import Estimate, ais, estimate, reverse_ais
from gibbsian.evaluators.bridge import Bridge, Ladder, bar, ladder_log_z
from gibbsian.evaluators.chains import RECORDED, Trace, run_chains
from gibbsian.evaluators.evaluate import Evaluation, SplitEvaluation, evaluate
from gibbsian.evaluators.exact import count_states, log_z, states
from gibbsian.evaluators.free_energy import free_energies, free_energy_gap
from gibbsian.evaluators.likelihood import LogLikelihood, Partition, log_likelihood, partition
from gibbsian.evaluators.mixing import (
    Comparison,
    Diagnostics,
    Mixing,
    autocorrelation_time,
    check_mixing,
    compare_chains,
    diagnose,
)
from gibbsian.evaluators.pseudo_likelihood import pseudo_likelihood, stochastic_pseudo_likelihood
from gibbsian.evaluators.reconstruction import (
    Reconstruction,
    reconstruction,
    reconstruction_error,
)

__all__ = [
    "RECORDED", "Bridge", "Comparison", "Diagnostics", "Estimate", "Evaluation", "Ladder",
    "LogLikelihood", "Mixing", "Partition", "Reconstruction", "SplitEvaluation", "Trace", "ais",
    "autocorrelation_time", "bar", "check_mixing", "compare_chains", "count_states", "diagnose",
    "estimate", "evaluate", "free_energies", "free_energy_gap", "ladder_log_z", "log_likelihood",
    "log_z", "partition", "pseudo_likelihood", "reconstruction", "reconstruction_error", "reverse_ais",
    "run_chains", "states", "stochastic_pseudo_likelihood",
]  # fmt: skip
