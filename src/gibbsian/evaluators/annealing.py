"""Chains that move along the base-rate path, with one product up and one down a temperature."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath, check_start
from gibbsian.samplers.gibbs import draw


class Annealing:
    """Chains on the layers of one parity, the others summed out, and the fields that the target makes.

    At β the couplings are βW, so the fields at every β are β times those of the target: they are
    computed once a state, and serve its free energies at two temperatures and the next sweep. Weights of
    chains of fewer units scatter less, so deep machines keep the parity that has fewer (Salakhutdinov &
    Hinton 2009 anneal the first of two hidden layers). With one hidden layer the visible one is kept.

    Parameters
    ----------
    machine : BoltzmannMachine
        The target, at β = 1.
    reference : BoltzmannMachine
        The start, at β = 0; the same machine with W = 0.
    generator : torch.Generator
    kept : int, optional
        Parity of the chains' layers; the one above unless given.

    Raises
    ------
    GibbsianError
        If the reference does not fit the machine, or the machine has no finite log Z.
    """

    def __init__(
        self, machine: BoltzmannMachine, reference: BoltzmannMachine, generator: Generator,
        kept: int | None = None,
    ) -> None:  # fmt: skip
        check_ends(machine, reference)
        self.machine, self.generator = machine, generator
        self.path = BaseRatePath(reference, machine)
        self.kept = _narrower(machine) if kept is None else kept
        self.summed = 1 - self.kept
        self.layers: list[Tensor] = []
        self.fields: dict[int, Tensor] = {}

    def start(self, layers: list[Tensor]) -> None:
        """Place the chains on samples whose even layers hold good; the odd ones are drawn from them."""
        self.layers = layers
        if self.kept == 1:
            draw(self.machine, self.layers, 1, self.generator)
        self.fields = self.machine.fields(self.summed, layers)

    def draw(self, chains: int) -> None:
        """Start from exact samples of the reference."""
        self.layers = list(self.path.draw(chains, self.generator))
        self.fields = self.machine.fields(self.summed, self.layers)

    def gain(self, low: float, high: float) -> Float[Tensor, " chains"]:
        """Return F_low − F_high at the chains' layers, the others summed out, in float64."""
        return self.path.gain(self.layers, self.fields, low, high, self.kept)

    def sweep(self, beta: float) -> None:
        """Move the chains by one Gibbs sweep at β: the summed layers given them, then they given those."""
        now = self.path.at(beta)
        fields = {i: f * beta for i, f in self.fields.items()}
        draw(now, self.layers, self.summed, self.generator, fields=fields)
        draw(now, self.layers, self.kept, self.generator)
        self.fields = self.machine.fields(self.summed, self.layers)


def _narrower(machine: BoltzmannMachine) -> int:
    """Return the parity with fewer units, 0 for a machine of one hidden layer."""
    if len(machine.layers) == 2:
        return 0
    even, odd = (sum(machine.sizes[i] for i in machine.parity(p)) for p in (0, 1))
    return int(odd < even)


def check_ends(machine: BoltzmannMachine, reference: BoltzmannMachine) -> None:
    """Raise a `GibbsianError` unless a path from the reference to the machine can be walked."""
    check_start(machine, reference)
    for name, p in (*machine.named_parameters(), *reference.named_parameters()):
        if not bool(torch.isfinite(p).all()):
            raise GibbsianError(
                f"The parameter {name} holds values that are not finite, so the machine has no "
                "likelihood; go back to an earlier checkpoint."
            )
    norm = machine.coupling_norm()
    if norm >= 1:
        raise GibbsianError(
            f"This machine has no finite partition function (coupling norm {norm:.3g}, must be "
            "below 1), so it has no likelihood; train it with gibbsian, which keeps it proper."
        )
