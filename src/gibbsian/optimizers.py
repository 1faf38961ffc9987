"""Optimisers by name, all of them PyTorch's, refused where a run could not resume."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from gibbsian.errors import TrainingError
from gibbsian.packing import pack

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]

# They need the loss as a function, and a Boltzmann machine's loss cannot be evaluated.
_NEED_LOSS = {"lbfgs"}
_NEED_SPARSE = {"sparseadam"}


def names() -> list[str]:
    """List the optimisers that can be asked for by name."""
    return sorted(set(_classes()) - _NEED_LOSS - _NEED_SPARSE)


def _classes() -> dict[str, Callable[..., Optimizer]]:
    return {
        k.lower(): v
        for k, v in vars(torch.optim).items()
        if inspect.isclass(v) and issubclass(v, Optimizer) and v is not Optimizer
    }


def quick(optimizer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, and PyTorch's one-pass loop over the parameters unless they ask for another.

    Adam's eight passes took 15 ms on 4 million parameters and one core, a third of an update by
    backpropagation; in one pass they take 3.
    """
    made = _classes().get(optimizer.lower())
    if made is None or {"fused", "foreach", "differentiable"} & set(options):
        return dict(options)
    able = "fused" in inspect.signature(made).parameters
    return dict(options) | ({"fused": True} if able else {})


@contextmanager
def lean() -> Iterator[None]:
    """Keep the optimisers' bookkeeping from importing PyTorch's compiler, which nothing here uses.

    They import it to keep it out of their own methods, which takes two seconds and 70 MB. A method that is
    marked as dealt with does not. Other versions of PyTorch may ignore the mark.
    """
    mark, methods = "__dynamo_disable", ("add_param_group", "state_dict", "load_state_dict")
    found = [getattr(getattr(Optimizer, name), "__wrapped__", None) for name in methods]
    marked = [f for f in found if f is not None and not hasattr(f, mark)]
    if "torch._dynamo" in sys.modules:
        marked = []
    for f in marked:
        setattr(f, mark, f)
    try:
        yield
    finally:
        for f in marked:
            delattr(f, mark)


def build(
    optimizer: str | OptimizerFactory,
    groups: Iterable[dict[str, Any]],
    options: Mapping[str, Any] | None = None,
) -> Optimizer:
    """Make an optimiser from a name of `torch.optim`, or from a function of parameter groups.

    Each group carries its learning rate as ``"lr"``, so a rate that the function gives has no effect.

    Raises
    ------
    TrainingError
        If the name is unknown, an option does not fit, or the optimiser's state holds anything but
        tensors and numbers, so that a run with it could not resume without unpickling.
    """
    groups = list(groups)
    with lean():
        return _checked(optimizer, groups, options or {})


def _checked(
    optimizer: str | OptimizerFactory, groups: list[dict[str, Any]], options: Mapping[str, Any]
) -> Optimizer:
    if callable(optimizer):
        made = optimizer(groups)
        if not isinstance(made, Optimizer):
            raise TrainingError(
                "The optimiser's function must return a torch.optim optimiser for the parameter groups "
                f"it is given, not {type(made).__name__}."
            )
    else:
        if "lr" in options:
            raise TrainingError("The learning rate is a setting of its own: give it as lr.")
        if optimizer.lower() not in names():
            raise TrainingError(
                f"There is no optimiser {optimizer!r} that fits; known are {', '.join(names())}."
            )
        try:
            made = _classes()[optimizer.lower()](groups, **options)
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"The optimiser {optimizer!r} refuses its options: {error}."
            ) from None
    try:
        pack({"optimizer": made.state_dict()})
    except TrainingError as error:
        raise TrainingError(f"This optimiser cannot be used: {error}") from None
    return made
