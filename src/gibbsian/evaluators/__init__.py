"""Evaluators: what a machine is worth, and what of it to believe; one idea a file."""

from gibbsian.evaluators.ais import Estimate, ais, estimate, reverse_ais
from gibbsian.evaluators.belief import Belief, Partition
from gibbsian.evaluators.bound import variational_bound, variational_free_energies
from gibbsian.evaluators.bridge import Bridge, Ladder, bar, ladder_log_z
from gibbsian.evaluators.certificate import certify, certify_samples
from gibbsian.evaluators.chains import RECORDED, Trace, run_chains
from gibbsian.evaluators.checks import Check
from gibbsian.evaluators.equivalence import Equivalence, equivalence
from gibbsian.evaluators.evaluate import Evaluation, SplitEvaluation, evaluate
from gibbsian.evaluators.exact import count_states, log_z, states
from gibbsian.evaluators.free_energy import free_energies, free_energy_gap
from gibbsian.evaluators.granted import Certificate
from gibbsian.evaluators.likelihood import LogLikelihood, log_likelihood, partition
from gibbsian.evaluators.mixing import (
    Comparison,
    Diagnostics,
    Mixing,
    autocorrelation_time,
    check_mixing,
    compare_chains,
    diagnose,
)
from gibbsian.evaluators.observables import Observables, observables
from gibbsian.evaluators.pseudo_likelihood import pseudo_likelihood, stochastic_pseudo_likelihood
from gibbsian.evaluators.quality import (
    AdversarialAccuracy,
    Coverage,
    Privacy,
    adversarial_accuracy,
    covariance_error,
    coverage,
    privacy,
)
from gibbsian.evaluators.reconstruction import (
    Reconstruction,
    reconstruction,
    reconstruction_error,
)

__all__ = [
    "RECORDED", "AdversarialAccuracy", "Belief", "Bridge", "Certificate", "Check", "Comparison", "Coverage",
    "Diagnostics", "Equivalence", "Estimate", "Evaluation", "Ladder", "LogLikelihood", "Mixing",
    "Observables", "Partition", "Privacy", "Reconstruction", "SplitEvaluation", "Trace",
    "adversarial_accuracy", "ais", "autocorrelation_time", "bar", "certify", "certify_samples",
    "check_mixing", "compare_chains", "count_states", "covariance_error", "coverage", "diagnose",
    "equivalence", "estimate", "evaluate", "free_energies", "free_energy_gap", "ladder_log_z",
    "log_likelihood", "log_z", "observables", "partition", "privacy", "pseudo_likelihood",
    "reconstruction", "reconstruction_error", "reverse_ais", "run_chains", "states",
    "stochastic_pseudo_likelihood", "variational_bound", "variational_free_energies",
]  # fmt: skip
