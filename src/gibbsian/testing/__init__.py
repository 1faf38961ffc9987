"""The conformance kit: what a new unit, connection, machine or sampler is held against.

Each ``check_…`` function compares the library's closed forms with an independent truth (enumeration
of all states, or quadrature for real units) and raises an `AssertionError` that says what differs.
A test inherits all of them by a call; see ``tests/test_units.py`` for the pattern.

The statistical checks earn their tolerance: a probability under the truth of independent draws,
corrected for the number of comparisons. Give a check a wrong target to see it fail.
"""

from gibbsian.testing.agreement import Agreement
from gibbsian.testing.connections import check_connection
from gibbsian.testing.machines import (
    MACHINE_CHECKS,
    check_energies,
    check_gradient,
    check_likelihood_gradient,
    check_machine,
    check_marginal_energy,
    negative_log_likelihood,
)
from gibbsian.testing.perturbed import perturbed
from gibbsian.testing.samplers import check_contract, check_distribution, check_sampler
from gibbsian.testing.tables import Table, enumerate_states
from gibbsian.testing.units import UNIT_CHECKS, check_units

__all__ = [
    "MACHINE_CHECKS",
    "UNIT_CHECKS",
    "Agreement",
    "Table",
    "check_connection",
    "check_contract",
    "check_distribution",
    "check_energies",
    "check_gradient",
    "check_likelihood_gradient",
    "check_machine",
    "check_marginal_energy",
    "check_sampler",
    "check_units",
    "enumerate_states",
    "negative_log_likelihood",
    "perturbed",
]
