"""L1 and L2 penalties by parameter."""

from collections.abc import Mapping, MutableMapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from gibbsian.arguments import number
from gibbsian.errors import TrainingError
from gibbsian.machine import BoltzmannMachine


class Penalty:
    """Adds λ₁ Σ|w| + ½ λ₂ Σ w² to −log p, per parameter.

    The gradient gains λ₁ sign(w) + λ₂ w. It is added to the plain gradient: after centring it would
    move the optimum.

    Parameters
    ----------
    l1, l2 : float or mapping of name pattern to float
        Strengths in nats per unit; a number means all couplings. Patterns are shell-style over the
        names of ``machine.named_parameters()``, such as ``"connections.*"`` or ``"units.1.bias"``.

    Raises
    ------
    TrainingError
        If a strength is negative, or (in `check`) a pattern matches no parameter.
    """

    def __init__(
        self, l1: float | Mapping[str, float] = 0.0, l2: float | Mapping[str, float] = 0.0
    ) -> None:
        self.l1, self.l2 = _strengths(l1), _strengths(l2)

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
        return bool(self.l1 or self.l2)

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


def _strengths(value: float | Mapping[str, float]) -> dict[str, float]:
    table = dict(value) if isinstance(value, Mapping) else {"connections.*": value}
    if any(number(strength, "A penalty", TrainingError) < 0 for strength in table.values()):
        raise TrainingError(f"Penalties must be 0 or positive, and {value!r} is not.")
    return {k: float(v) for k, v in table.items() if v}


def _match(table: Mapping[str, float], name: str) -> float:
    return sum(v for pattern, v in table.items() if fnmatchcase(name, pattern))
