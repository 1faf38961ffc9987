"""L1 and L2 penalties by parameter, and a heavy-tailed prior on the couplings."""

import warnings
from collections.abc import Mapping, MutableMapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from gibbsian.arguments import number
from gibbsian.errors import GibbsianWarning, TrainingError
from gibbsian.machine import BoltzmannMachine

# Degrees of freedom of the prior.
_FREEDOM = 2
# Couplings below this do nothing.
_HELD = 1e-4
_COUPLINGS = "connections.*"


class Penalty:
    """Adds λ₁ Σ|w| + ½ λ₂ Σ w² to −log p, per parameter, and the couplings' prior.

    The gradient gains λ₁ sign(w) + λ₂ w. It is added to the plain gradient: after centring it would
    move the optimum.

    The prior is Student's t with ν = 2 degrees of freedom and scale s on each coupling. For n training rows
    its share of −log p per row is

        (ν + 1)/(2n) Σ log(1 + w²/(ν s²)),   with the gradient   (ν + 1)/n · w/(ν s² + w²).

    Learned couplings are like that: nearly all small, a few large (on MNIST the median of |w| is 0.09, and
    one in a hundred is above 1.3). Small ones, which the data hardly determine, are drawn to 0 as by an L2
    penalty of (ν + 1)/(n ν s²); large ones are left alone, which no L2 penalty does. Of few rows the prior
    makes so much that a small s holds all couplings at the 0 that they start from: see `warn`.

    Parameters
    ----------
    l1, l2 : float or mapping of name pattern to float
        Strengths in nats per unit; a number means all couplings. Patterns are shell-style over the
        names of ``machine.named_parameters()``, such as ``"connections.*"`` or ``"units.1.bias"``.
    prior_scale : float
        s of the prior on all couplings, in their unit; 0 for none.
    rows : int
        n, the number of training rows that the prior is shared among.

    Raises
    ------
    TrainingError
        If a strength is negative, or (in `check`) a pattern matches no parameter.
    """

    def __init__(
        self, l1: float | Mapping[str, float] = 0.0, l2: float | Mapping[str, float] = 0.0,
        prior_scale: float = 0.0, rows: int = 1,
    ) -> None:  # fmt: skip
        self.l1, self.l2 = _strengths(l1), _strengths(l2)
        if number(prior_scale, "The scale of a prior", TrainingError) < 0:
            raise TrainingError(
                f"The scale of the prior must be 0 (none) or positive, and {prior_scale!r} is not."
            )
        self.prior_scale, self.rows = float(prior_scale), rows

    def check(self, machine: BoltzmannMachine) -> None:
        """Raise a `TrainingError` if a pattern matches no learned parameter of the machine."""
        names = [k for k, p in machine.named_parameters() if p.requires_grad]
        for pattern in [*self.l1, *self.l2]:
            if not any(fnmatchcase(n, pattern) for n in names):
                raise TrainingError(
                    f"No learned parameter matches the penalty's {pattern!r}; there are "
                    f"{', '.join(names)}."
                )

    def __bool__(self) -> bool:
        """Whether there is any penalty."""
        return bool(self.l1 or self.l2 or self.prior_scale)

    def check_step(self, lr: float) -> None:
        """Raise a `TrainingError` if a step at this rate would take small couplings past the prior's 0."""
        needed = (lr * (_FREEDOM + 1) / (_FREEDOM * self.rows)) ** 0.5
        if 0 < self.prior_scale < needed:
            raise TrainingError(
                f"prior_scale {self.prior_scale:g} is too small for {self.rows} rows at this learning rate; "
                f"give at least {needed:.2g}, or lower the rate."
            )

    def warn(self, machine: BoltzmannMachine) -> None:
        """Warn where no coupling has left 0, as where a penalty outweighs what few rows say."""
        couplings = [p for k, p in machine.learned().items() if fnmatchcase(k, _COUPLINGS)]
        if self and couplings and all(float(p.detach().abs().max()) < _HELD for p in couplings):
            warnings.warn(
                "The penalty has held all couplings at 0, so the machine has learned the means of its units "
                "alone; lower l1 or l2, or raise prior_scale.",
                GibbsianWarning,
                stacklevel=2,
            )

    def add(
        self, machine: BoltzmannMachine, gradient: MutableMapping[str, Tensor], times: float = 1.0
    ) -> None:
        """Add the penalties' gradients, `times` over, to a gradient of −log p, in place."""
        if not self:
            return
        with torch.no_grad():
            for name, p in machine.named_parameters():
                if name in gradient:
                    l1, l2 = times * _match(self.l1, name), times * _match(self.l2, name)
                    if l1:
                        gradient[name] = gradient[name] + l1 * p.sign()
                    if l2:
                        gradient[name] = gradient[name] + l2 * p
                    if self.prior_scale and fnmatchcase(name, _COUPLINGS):
                        pull = p / (_FREEDOM * self.prior_scale**2 + p.square())
                        gradient[name] = gradient[name] + (_FREEDOM + 1) / self.rows * times * pull


def _strengths(value: float | Mapping[str, float]) -> dict[str, float]:
    table = dict(value) if isinstance(value, Mapping) else {_COUPLINGS: value}
    if any(number(strength, "A penalty", TrainingError) < 0 for strength in table.values()):
        raise TrainingError(f"Penalties must be 0 or positive, and {value!r} is not.")
    return {k: float(v) for k, v in table.items() if v}


def _match(table: Mapping[str, float], name: str) -> float:
    return sum(v for pattern, v in table.items() if fnmatchcase(name, pattern))
