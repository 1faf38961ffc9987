"""What an estimator is, and the positive phase that all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import meanfield, precision
from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.estimators.online import OnlineLogZ
from gibbsian.machine import BoltzmannMachine, Clamp, State
from gibbsian.moments import Moments, Terms, shares, signed
from gibbsian.samplers import ChainState, Gibbs, Sampler
from gibbsian.samplers.base import as_sampler
from gibbsian.units import base as unit

# Clamped Gibbs sweeps of the positive phase of a machine with more than one hidden layer.
_POSITIVE_SWEEPS = 10


class Phases:
    """What an estimator found: mean statistics of both phases, and the chains after them.

    Parameters
    ----------
    positive, negative : mapping of str to Tensor
        Mean statistics under the data and under the model, by the names of their parameters.
    chains : ChainState or None
        What persists.

    Attributes
    ----------
    rate : float
        What the learning rate is multiplied by, for this update alone.
    restarted : bool
        Whether the estimator put the parameters back to earlier ones: the average and the optimiser's
        memory then begin anew.
    """

    rate: float = 1.0
    restarted: bool = False

    def __init__(
        self,
        positive: Mapping[str, Tensor],
        negative: Mapping[str, Tensor],
        chains: ChainState | None,
    ) -> None:
        self._positive, self._negative, self.chains = positive, negative, chains

    @property
    def positive(self) -> Mapping[str, Tensor]:
        """Mean statistics under the data."""
        return self._positive

    @property
    def negative(self) -> Mapping[str, Tensor]:
        """Mean statistics under the model."""
        return self._negative

    def gradient(
        self, machine: BoltzmannMachine, learned: Mapping[str, Tensor], share: Tensor | None = None
    ) -> Moments:
        """Return the gradient of −log p for the learned parameters, times `share`: see `machine.gradient`."""
        found = machine.gradient(self.positive, self.negative)
        return Moments(found if share is None else {k: g * share for k, g in found.items()})

    def mean(self, machine: BoltzmannMachine, layer: int) -> Float[Tensor, " n"]:
        """Return the mean state of a layer under the data."""
        return unit.state_mean(machine.layers[layer], unit.select(self.positive, f"units.{layer}."))


class Stacked(Phases):
    """Both phases as rows of one table: the data's first, then the model's.

    Their gradient is one weighted sum over the table.

    Parameters
    ----------
    terms : Terms
        Statistics of all rows.
    data : int
        How many of them are the data's.
    weights : pair of Tensor or None
        What each row of either phase weighs.
    chains : ChainState or None
    rate : float
    restarted : bool
    """

    def __init__(
        self, terms: Terms, data: int, weights: tuple[Tensor | None, Tensor | None],
        chains: ChainState | None, rate: float = 1.0, restarted: bool = False,
    ) -> None:  # fmt: skip
        self._terms, self._data, self._weights, self.chains = terms, data, weights, chains
        self.rate, self.restarted = rate, restarted
        self._like = terms.values[0]

    @property
    def positive(self) -> Moments:
        """Mean statistics under the data."""
        share = shares(self._data, self._weights[0], self._like)
        return self._terms.part(slice(0, self._data)).sums(share)

    @property
    def negative(self) -> Moments:
        """Mean statistics under the model."""
        share = shares(len(self._like) - self._data, self._weights[1], self._like)
        return self._terms.part(slice(self._data, None)).sums(share)

    def gradient(
        self, machine: BoltzmannMachine, learned: Mapping[str, Tensor], share: Tensor | None = None
    ) -> Moments:
        """Return the gradient of −log p for the learned parameters, times `share`."""
        n = self._data
        weights = signed(n, len(self._like) - n, self._weights, self._like)
        found = self._terms.sums(weights if share is None else weights * share, learned).entries()
        for name, g in found.items():
            if unit.is_log(name):
                found[name] = g * learned[name].detach().exp()  # type: ignore[operator]
        return Moments(found)

    def mean(self, machine: BoltzmannMachine, layer: int) -> Float[Tensor, " n"]:
        """Return the mean state of a layer under the data."""
        share = shares(self._data, self._weights[0], self._like)
        return share @ self._terms.values[layer][: self._data]


class Estimator(ABC):
    """Estimates the log-likelihood gradient ⟨T⟩_data − ⟨T⟩_model from one batch.

    Attributes
    ----------
    config : dict
        Plain values that rebuild the estimator.
    pace : float
        The learning rate over the run's first one, which the training loop sets before each update.
    """

    config: dict[str, Any]
    pace: float = 1.0

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

    def report(self, machine: BoltzmannMachine, chains: ChainState | None) -> dict[str, float]:
        """Return numbers that the estimator has found besides, for the records of training."""
        return {}

    def online_log_z(
        self, machine: BoltzmannMachine, chains: ChainState | None
    ) -> OnlineLogZ | None:
        """Return log Z of a machine near the last one, as training has followed it; None where it has not."""
        return None


@torch.no_grad()
def posterior(
    machine: BoltzmannMachine, x: Float[Tensor, "batch n"], generator: Generator | None
) -> State:
    """Return full states with `x` as their visible layer.

    The odd entries are placeholders: they enter a gradient by their expectations, which for one hidden
    layer are exact. Deeper layers are drawn by Gibbs sweeps with the visible layer held, from an
    upward pass: chains that start at the data (CD) need states. Persistent ones do not, and take
    `inferred`.
    """
    if len(machine.layers) == 2:
        return x, x
    held = {0: Clamp(torch.ones_like(x, dtype=torch.bool), x)}
    gibbs = Gibbs()
    chain = gibbs.init(machine, x, generator, held)
    for _ in range(_POSITIVE_SWEEPS):
        chain, _ = gibbs.step(machine, chain, generator, held)
    return chain.layers


def inferred(machine: BoltzmannMachine, x: Float[Tensor, "batch n"]) -> Terms | None:
    """Return the data's terms under mean field, None for one hidden layer: its posterior is a closed form.

    This is the positive phase of deep machines in Salakhutdinov & Hinton (2009): the gradient is then that of
    the variational bound.
    """
    if len(machine.layers) == 2:
        return None
    full = precision.full(machine)  # means are not what bfloat16 holds exactly, as states are
    return meanfield.terms(full, meanfield.infer(full, x))


def stacked(
    machine: BoltzmannMachine, data: State, model: State,
    fields: tuple[Mapping[int, Tensor], Mapping[int, Tensor]],
) -> Terms:  # fmt: skip
    """Return the terms of the data's rows and, below them, of the model's; `fields` are on the odd layers."""
    even = range(0, len(machine.layers), 2)
    rows = {i: torch.cat([data[i], model[i]]) for i in even}
    state = [rows.get(i, data[i]) for i in range(len(machine.layers))]
    return machine.terms(state, 1, {i: torch.cat([f, fields[1][i]]) for i, f in fields[0].items()})


def beneath(
    machine: BoltzmannMachine, data: State, deep: Terms | None, model: State,
    fields: Mapping[int, Tensor],
) -> Terms:  # fmt: skip
    """Return the data's terms, which `inferred` found if there is need, and below them the model's."""
    if deep is None:
        return stacked(machine, data, model, (machine.fields(1, data), fields))
    return deep.above(machine.terms(model, 1, fields))


def from_spec(spec: Mapping[str, Any]) -> Estimator:
    """Build the estimator that ``{"kind": …, **settings}`` describes.

    Raises
    ------
    GibbsianError
        If the kind is unknown or a setting does not fit.
    """
    from gibbsian.estimators.cd import CD
    from gibbsian.estimators.fpcd import FPCD
    from gibbsian.estimators.jarzynski import Jarzynski
    from gibbsian.estimators.named import NAMES
    from gibbsian.estimators.pcd import PCD
    from gibbsian.estimators.ptt import PTT

    known = {"cd": CD, "pcd": PCD, "fpcd": FPCD, "jarzynski": Jarzynski, "ptt": PTT}
    settings = dict(spec)
    kind = str(settings.pop("kind", "")).lower()
    if kind not in known:
        raise GibbsianError(f"There is no method {kind!r}; known are {', '.join(known)}.")
    if isinstance(settings.get("sampler"), str) and settings["sampler"] not in NAMES:
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

    An object is nothing that a configuration can rebuild, so its class's name is all that is kept:
    `from_spec` refuses it, and a run with it is resumed by handing the method over.
    """
    made = as_sampler(sampler, TrainingError)
    return made, {} if sampler is None else {"sampler": type(sampler).__name__}
