"""Samplers by name: the plain settings of each, as the command line and the file of a run give them."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any

from gibbsian.errors import GibbsianError
from gibbsian.samplers.base import Sampler
from gibbsian.samplers.driven import Driven
from gibbsian.samplers.gibbs import Gibbs
from gibbsian.samplers.langevin import Langevin
from gibbsian.samplers.rates import RatesFPCD
from gibbsian.samplers.tempering import Tempering
from gibbsian.samplers.trajectory import TrajectoryTempering
from gibbsian.samplers.transitions import TemperedTransitions

# Gibbs–Langevin (Liao et al. 2022): unadjusted moves on E(v, h), with Gibbs steps of the hidden units.
gibbs_langevin = partial(Langevin, adjusted=False, hidden="sampled")

_MADE: dict[str, Callable[..., Sampler]] = {
    "gibbs": Gibbs,
    "tempering": Tempering,
    "trajectory": TrajectoryTempering,
    "transitions": TemperedTransitions,
    "driven": Driven,
    "langevin": Langevin,
    "gibbs-langevin": gibbs_langevin,
    "rates": RatesFPCD,
}
# Annotations of the arguments that count as settings: in words, what fits them, and what it becomes.
_KINDS: dict[Any, tuple[str, type, Callable[[Any], Any]]] = {
    float: ("a number", Real, float),
    int: ("a whole number", Integral, int),
    int | None: ("a whole number", Integral, int),
    bool: ("true or false", bool, bool),
    str: ("a text", str, str),
}


def check(
    name: str, options: Mapping[str, Any], error: type[GibbsianError] = GibbsianError
) -> dict[str, Any]:
    """Return the settings of a sampler by its name as Python's own numbers, texts and truth values.

    Parameters
    ----------
    name : str
        One that has settings, or any other for a sampler without.
    options : mapping
    error : type of GibbsianError

    Raises
    ------
    GibbsianError
        Or the class of `error`, if one is no argument of the sampler or of another kind.
    """
    arguments = inspect.signature(_MADE.get(name, Gibbs)).parameters.values()
    kinds = {p.name: _KINDS[p.annotation] for p in arguments if p.annotation in _KINDS}
    if options and not kinds:
        raise error(
            f"The sampler {name} takes no options; leave {', '.join(options)} out or name another sampler."
        )
    found = {}
    for key, value in options.items():
        _, fits, become = kinds.get(key, ("", (), str))
        # Python counts truth values as numbers, too.
        if not isinstance(value, fits) or (isinstance(value, bool) and fits is not bool):
            known = ", ".join(f"{k} ({kind[0]})" for k, kind in kinds.items())
            raise error(f"The sampler {name} takes the options {known}, not {key}={value!r}.")
        found[key] = become(value)
    return found
