"""One step down the gradient: in centred coordinates, and within the limits of the parameters."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from gibbsian.centring import Centring, Step
from gibbsian.errors import GibbsianWarning
from gibbsian.machine import BoltzmannMachine
from gibbsian.moments import Moments
from gibbsian.proper import Keeper
from gibbsian.units import base as unit
from gibbsian.whitening import Whitening


class Descent:
    """Takes an optimiser's steps with a machine's parameters.

    Parameters
    ----------
    machine : BoltzmannMachine
    optimizer : torch.optim.Optimizer
        Of the machine's learned parameters.
    keeper : Keeper
        Keeps the machine proper.
    centring : Centring, optional
        The coordinates that the optimiser works in; the machine's own unless given.
    whitening : Whitening, optional
        Preconditions the gradient in these coordinates.
    """

    def __init__(
        self, machine: BoltzmannMachine, optimizer: Optimizer, keeper: Keeper,
        centring: Centring | None, whitening: Whitening | None = None,
    ) -> None:  # fmt: skip
        self.optimizer, self.keeper, self.centring = optimizer, keeper, centring
        self.whitening = whitening
        self._learned, self._warned = machine.learned(), False
        self._limits = [
            (leaf.get_parameter(name), low, high)
            for u in machine.layers
            for leaf in unit.leaves(u)
            for name, (low, high) in leaf.domain.limits.items()
            if leaf.get_parameter(name).requires_grad
        ]

    def step(
        self, gradient: Moments, offsets: Sequence[Tensor], number: int,
        look: Callable[[Mapping[str, Tensor], int], None], rate: float = 1.0,
    ) -> None:  # fmt: skip
        """Take step `number`, counted from 1, down the gradient of the machine's own parameters.

        `rate` multiplies the learning rate for this step alone.

        ``look(gradients, number)`` sees the gradients by name before the step is taken, and may refuse it
        by an exception; what it sees holds a number that is not finite where the gradient does.
        """
        groups = self.optimizer.param_groups
        usual = [group["lr"] for group in groups]
        for group, lr in zip(groups, usual, strict=True):
            group["lr"] = lr * rate
        try:
            self._step(gradient, offsets, number, look)
        finally:
            for group, lr in zip(groups, usual, strict=True):
                group["lr"] = lr

    def _step(
        self, gradient: Moments, offsets: Sequence[Tensor], number: int,
        look: Callable[[Mapping[str, Tensor], int], None],
    ) -> None:  # fmt: skip
        if self.centring is not None:
            gradient = self.centring.pull_back(gradient, offsets)
        if self.whitening is not None:
            gradient = self.whitening.precondition(gradient, number)
        if self.centring is not None and self._is_straight():
            before = {k: gradient[k] for k in self._learned if gradient.rows(k) is None}
            pulls = self.centring.push_forward(gradient, offsets)
            look({**before, **pulls}, number)
            self._go_straight(gradient)
            return
        for name, p in self._learned.items():
            p.grad = gradient.write(name, p.grad)
        look(gradient, number)
        if self.centring is None:
            self._move(number)
        else:
            # Limits bind inside: what they take back must not leave its share in the biases.
            with Step(self.centring, offsets):
                self._move(number)

    def _is_straight(self) -> bool:
        """Tell whether a step is the gradient times a number, and mapped back by a product."""
        (group, *more), optimizer = self.optimizer.param_groups, self.optimizer
        return (
            type(optimizer) is torch.optim.SGD
            and not (more or group["momentum"] or group["weight_decay"] or group["maximize"])
            and self.centring is not None
            and self.centring.is_linear
            and not (self._limits or self.keeper.needed)
        )

    def _go_straight(self, gradient: Moments) -> None:
        """Take the step of plain SGD without forming the gradient of couplings.

        Their rows are multiplied straight into them: the gradient is as large as they are, and to
        write it, to sum it up and to add it take three passes.
        """
        rate = self.optimizer.param_groups[0]["lr"]
        # PyTorch's schedulers warn unless the optimiser was at work before them; this is its work.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        for name, p in self._learned.items():
            rows = gradient.rows(name)
            if rows is None:
                p.add_(gradient[name], alpha=-rate)
            else:
                rows.add_to(p, -rate)

    def _move(self, number: int) -> None:
        """Take the optimiser's step, within the limits of precisions and of proper machines."""
        self.optimizer.step()
        for p, low, high in self._limits:
            p.clamp_(low, high)
        if self.keeper.keep() and not self._warned:
            self._warned = True
            warnings.warn(
                f"at update {number} the couplings came near the size at which this machine has no "
                "finite partition function; in such directions they are held back from here on: a "
                "smaller learning rate or an L2 penalty keeps away from it",
                GibbsianWarning,
                stacklevel=2,
            )
