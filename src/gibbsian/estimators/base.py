"""What an estimator is, and the positive phase that all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.machine import BoltzmannMachine, Clamp, State, Statistics
from gibbsian.samplers import ChainState, Gibbs, Sampler
from gibbsian.samplers.gibbs import draw

# Clamped Gibbs sweeps of the positive phase of a machine with more than one hidden layer.
_POSITIVE_SWEEPS = 10


@dataclass(frozen=True)
class Phases:
    """Mean statistics of both phases, and the chains after them."""

    positive: Statistics
    negative: Statistics
    chains: ChainState | None


class Estimator(ABC):
    """Estimates the log-likelihood gradient ⟨T⟩_data − ⟨T⟩_model from one batch.

    Attributes
    ----------
    config : dict
        Plain values that rebuild the estimator.
    """

    config: dict[str, Any]

    @abstractmethod
    def init(
        self, machine: BoltzmannMachine, data: Float[Tensor, "rows n"], generator: Generator | None
    ) -> ChainState | None:
        """Make the persistent chains, if there are any; `data` are rows to start from."""

    @abstractmethod
    def step(
        self, machine: BoltzmannMachine, x: Float[Tensor, "batch n"],
        chains: ChainState | None, generator: Generator | None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> Phases:  # fmt: skip
        """Return the mean statistics of both phases for the batch `x` with sample `weights`."""


@torch.no_grad()
def positive_phase(
    machine: BoltzmannMachine, x: Float[Tensor, "batch n"], generator: Generator | None,
    weights: Float[Tensor, " batch"] | None = None,
) -> tuple[Statistics, State, dict[int, Tensor]]:  # fmt: skip
    """Return statistics under data, a full state, and the fields on the odd layers.

    With one hidden layer the hidden expectation is exact. Deeper layers are drawn by Gibbs sweeps
    with the visible layer held, from an upward pass; the odd layers still enter by their means.
    The odd entries of the state are placeholders until they are drawn from the fields.
    """
    if len(machine.layers) == 2:
        state: State = (x, x)
    else:
        held = {0: Clamp(torch.ones_like(x, dtype=torch.bool), x)}
        gibbs = Gibbs()
        chain = gibbs.init(machine, x, generator, held)
        for _ in range(_POSITIVE_SWEEPS):
            chain, _ = gibbs.step(machine, chain, generator, held)
        state = chain.layers
    fields = machine.fields(1, state)
    return machine.mean_statistics(state, 1, weights, fields), state, fields


@torch.no_grad()
def draw_odd(
    machine: BoltzmannMachine, state: State, fields: dict[int, Tensor], generator: Generator | None
) -> ChainState:
    """Complete a positive-phase state by drawing its odd layers from their known fields."""
    layers = list(state)
    draw(machine, layers, 1, generator, fields=fields)
    return ChainState(tuple(layers))


def from_spec(spec: Mapping[str, Any]) -> Estimator:
    """Build the estimator that ``{"kind": …, **settings}`` describes.

    Raises
    ------
    GibbsianError
        If the kind is unknown or a setting does not fit.
    """
    from gibbsian.estimators.cd import CD
    from gibbsian.estimators.pcd import PCD

    known = {"cd": CD, "pcd": PCD}
    settings = dict(spec)
    kind = str(settings.pop("kind", "")).lower()
    if kind not in known:
        raise GibbsianError(f"There is no method {kind!r}; known are {', '.join(sorted(known))}.")
    if isinstance(settings.get("sampler"), str):
        raise TrainingError(
            f"This method's sampler was the object {settings['sampler']}, which no file holds; hand "
            "the method over again as method=…."
        )
    try:
        return known[kind](**settings)
    except TypeError:
        raise TrainingError(f"The method {kind} does not take the settings {settings}.") from None


def check_count(value: int, what: str) -> int:
    """Return `value` as an int of at least 1, else raise a `TrainingError`."""
    return whole(value, what, error=TrainingError)


def check_sampler(sampler: Sampler | None) -> tuple[Sampler, dict[str, str]]:
    """Return the sampler to use, Gibbs for None, and what the configuration says of it.

    A sampler is an object that no configuration can rebuild, so its name is all that is kept:
    `from_spec` refuses it, and a run with it is resumed by handing the method over.
    """
    if sampler is None:
        return Gibbs(), {}
    if not isinstance(sampler, Sampler):
        raise TrainingError(
            f"The sampler must be an object such as gb.Gibbs(), and {sampler!r} is not."
        )
    return sampler, {"sampler": type(sampler).__name__}
