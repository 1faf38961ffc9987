"""Samplers that PCD knows by name: made once it has the rows that some of them are fitted to."""

from collections.abc import Callable

from torch import Tensor

from gibbsian import memory
from gibbsian.errors import TrainingError
from gibbsian.estimators.moving_ladder import MovingLadder, check_levels_memory
from gibbsian.estimators.renewed import MovingRates
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import Driven, Gibbs, Langevin, RatesFPCD, Sampler, TemperedTransitions

# Spread of a driven sampler's β within training: its own default of 0.6 spoils the negative phase.
_SPREAD = 0.2

_MAKE: dict[str, Callable[[Tensor, int | None], Sampler]] = {
    "gibbs": lambda rows, levels: Gibbs(),
    "tempering": MovingLadder,
    "transitions": lambda rows, levels: MovingLadder(rows, levels, TemperedTransitions),
    "driven": lambda rows, levels: Driven(_SPREAD),
    "langevin": lambda rows, levels: Langevin(),
    "rates": lambda rows, levels: MovingRates(RatesFPCD(rows)),
}
NAMES = tuple(_MAKE)
# Those that stand on a ladder, whose levels may be counted.
LADDERS = ("tempering", "transitions")


def check_name(name: str | None, levels: int | None) -> None:
    """Check the name of a sampler, None for an object, and that it takes levels if there are any.

    Raises
    ------
    TrainingError
        If there is no such sampler, or it stands on no ladder.
    """
    if name is not None and name not in _MAKE:
        more = "; training along a trajectory is the method ptt" if name == "trajectory" else ""
        raise TrainingError(f"PCD's samplers by name are {', '.join(NAMES)}, not {name!r}{more}.")
    if levels is not None and name not in LADDERS:
        raise TrainingError(
            "Levels are those of tempering and transitions; give sampler='tempering' or leave them out."
        )


def named(
    name: str, machine: BoltzmannMachine, chains: int, rows: Tensor, levels: int | None
) -> Sampler:
    """Make a sampler by its name.

    Raises
    ------
    TrainingError
        If so many chains, with what it keeps of each, would not fit into memory.
    """
    made = _MAKE[name](rows, levels)
    if name == "tempering":
        # The levels that will be needed are not known yet where their number is left open.
        check_levels_memory(machine, chains, levels or 2)
    what = f"{'The fast weights of ' if name == 'rates' else ''}{chains:,} chains"
    numbers = chains * made.footprint(machine)
    memory.check(next(machine.parameters()), numbers, what, "ask for fewer chains", TrainingError)
    return made
