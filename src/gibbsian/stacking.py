"""A data set seen through machines: what the next machine of a greedy stack is trained on.

Batches are sent upwards as they are drawn, so no layer's activations of all rows are ever held.
"""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.data import Dataset, Split, Transform
from gibbsian.errors import DataError
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import Units
from gibbsian.units import base as unit


class Lift(ABC):
    """One step upwards: rows of one width to rows of another, drawn from a generator on the CPU.

    Attributes
    ----------
    width : int
        Columns of the rows that it returns.
    """

    width: int

    @abstractmethod
    def __call__(
        self, x: Float[Tensor, "rows n"], generator: Generator | None
    ) -> Float[Tensor, "rows m"]:
        """Return the rows one step higher."""

    def parameters(self) -> Mapping[str, Tensor]:
        """Return what the rows depend on, besides the rows below."""
        return {}


class Up(Lift):
    """States (or means) of the top layer of an RBM given its visible one, h ~ p(h | v).

    Parameters
    ----------
    machine : BoltzmannMachine
        With one hidden layer; a copy of it is kept.
    sampled : bool
        Whether states are drawn anew at each visit, which are valid data for any units. Means E[h | v] are
        not, but for Bernoulli units.

    Raises
    ------
    DataError
        If the machine has more hidden layers.
    """

    def __init__(self, machine: BoltzmannMachine, sampled: bool = True) -> None:
        if len(machine.layers) != 2:
            raise DataError(
                f"Data are seen through machines of one hidden layer, and this one has "
                f"{len(machine.layers) - 1}; stack one machine for each layer."
            )
        self.machine = copy.deepcopy(machine).to("cpu").requires_grad_(False)
        self.sampled, self.width = sampled, machine.sizes[1]

    def __call__(
        self, x: Float[Tensor, "rows n"], generator: Generator | None
    ) -> Float[Tensor, "rows m"]:
        """Return states or means of the hidden layer."""
        like, hidden = next(self.machine.parameters()), self.machine.layers[1]
        f = self.machine.joints[0].up(x.to(like))
        return hidden.sample(f, generator) if self.sampled else unit.mean(hidden, f)

    def parameters(self) -> Mapping[str, Tensor]:
        """Return the machine's parameters, and a mark if the rows are its means."""
        found = dict(self.machine.state_dict())
        return found if self.sampled else found | {"means": torch.ones(1)}


class Doubled(Lift):
    """Sums s = v + v of two copies of the rows, as doubled units take them.

    Rates become bits first, so that both copies are one state.
    """

    def __init__(self, units: Units) -> None:
        self.units, self.width = units, units.size

    def __call__(
        self, x: Float[Tensor, "rows n"], generator: Generator | None
    ) -> Float[Tensor, "rows m"]:
        """Return twice the rows' states."""
        return 2 * unit.states(self.units, x, generator)


class Through(Transform):
    """A fitted transform followed by lifts: from raw rows to rows of a hidden layer."""

    def __init__(self, below: Transform, lifts: Sequence[Lift]) -> None:
        super().__init__(below.steps)
        self.below, self.lifts, self.random = below, list(lifts), True

    @property
    def layout(self) -> list[tuple[str, int]]:
        """One block of states."""
        return [("state", self.lifts[-1].width)]

    @property
    def n_features(self) -> int:
        """The width of the last lift."""
        return self.lifts[-1].width

    @torch.no_grad()
    def __call__(
        self, raw: Tensor, generator: Generator | None = None, noisy: bool = True
    ) -> Tensor:
        """Return the rows of the top, in float32; states are drawn from `generator`."""
        x = self.below(raw, generator, noisy)
        for lift in self.lifts:
            x = lift(x, generator)
        return x.to(torch.float32)

    @property
    def noise(self) -> Tensor:
        """None: hidden units' states are no noisy rows."""
        return torch.zeros(self.n_features).double()

    def inverse(self, x: Tensor) -> Tensor:
        """Refuse: a state of hidden units is no row of the data."""
        raise DataError(
            "Rows of hidden units have no raw form; send them down through the machines."
        )

    def state(self) -> dict[str, Any]:
        """Return the state of the transform below; the lifts are kept with their machines."""
        return self.below.state()


def through(data: Dataset, *lifts: Lift) -> Dataset:
    """Return a data set seen through lifts, one after another from below.

    Parts, order, labels and weights of rows are those of `data`. Its fingerprint is of the rows and of all
    that the lifts depend on.

    Parameters
    ----------
    data : Dataset
        The data of the machine at the bottom, or again one seen through lifts.
    *lifts : Lift
        `Up` for a trained machine, `Doubled` for copies.
    """
    if not lifts:
        return data
    top = Through(data.transform, lifts)
    parts = {k: _seen(data._parts()[k], top) for k in ("train", "validation", "test")}
    digest = hashlib.sha256(data.fingerprint.encode())
    for lift in lifts:
        digest.update(type(lift).__name__.encode())
        for name, value in lift.parameters().items():
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    # No file holds these rows.
    spec = {"source": "array", "fingerprint": digest.hexdigest()}
    name = f"{data.name} through {type(lifts[-1]).__name__}"
    return Dataset(name, parts, top, None, data.label_names, spec)


def _seen(part: Split | None, transform: Transform) -> Split | None:
    """Return a part with another transform, sharing its rows."""
    if part is None:
        return None
    other = copy.copy(part)
    other.transform = transform
    return other
