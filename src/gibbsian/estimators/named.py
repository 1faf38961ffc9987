"""Samplers that PCD knows by name: made once it has the rows that some of them are fitted to."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from gibbsian import memory
from gibbsian.errors import TrainingError
from gibbsian.estimators.moving_ladder import MovingLadder, check_levels_memory
from gibbsian.estimators.renewed import MovingRates
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import Driven, Gibbs, Langevin, RatesFPCD, Sampler, TemperedTransitions
from gibbsian.samplers import options as sampler_options

# Spread of a driven sampler's β within training: its own default of 0.6 spoils the negative phase.
_SPREAD = 0.2

_MAKE: dict[str, Callable[..., Sampler]] = {
    "gibbs": lambda rows, levels: Gibbs(),
    "tempering": MovingLadder,
    "transitions": lambda rows, levels, **how: MovingLadder(
        rows, levels, TemperedTransitions, **how
    ),
    "driven": lambda rows, levels, std=_SPREAD, **how: Driven(std, **how),
    "langevin": lambda rows, levels, **how: Langevin(**how),
    "gibbs-langevin": lambda rows, levels, **how: sampler_options.gibbs_langevin(**how),
    "rates": lambda rows, levels, **how: MovingRates(RatesFPCD(rows, **how)),
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


def check_options(sampler: Sampler | str | None, options: Any) -> dict[str, Any]:
    """Return the settings of a sampler by its name: see `gibbsian.samplers.options.check`.

    Raises
    ------
    TrainingError
        If they are no table, the sampler is an object, or one does not fit.
    """
    if not options:
        return {}
    if not isinstance(options, Mapping):
        raise TrainingError(
            f"sampler_options must be a table such as {{'size': 0.05}}, and {options!r} is not."
        )
    if isinstance(sampler, Sampler):
        raise TrainingError(
            "The options are those of a sampler by its name; give an object its settings when it is made, "
            "and leave sampler_options out."
        )
    return sampler_options.check(sampler or "gibbs", options, TrainingError)


def named(
    name: str, machine: BoltzmannMachine, chains: int, rows: Tensor, levels: int | None,
    options: Mapping[str, Any],
) -> Sampler:  # fmt: skip
    """Make a sampler by its name.

    Raises
    ------
    TrainingError
        If so many chains, with what it keeps of each, would not fit into memory.
    """
    made = _MAKE[name](rows, levels, **options)
    if name == "tempering":
        # The levels that will be needed are not known yet where their number is left open.
        check_levels_memory(machine, chains, levels or 2)
    what = f"{'The fast weights of ' if name == 'rates' else ''}{chains:,} chains"
    numbers = chains * made.footprint(machine)
    memory.check(next(machine.parameters()), numbers, what, "ask for fewer chains", TrainingError)
    return made
