"""Chains that move along the base-rate path, with one product up and one down a temperature."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath, check_start
from gibbsian.samplers.gibbs import draw


class Annealing:
    """Chains on the even layers of a machine, and the fields that the target makes of them.

    At β the couplings are βW, so the fields at every β are β times those of the target: they are
    computed once a state, and serve its free energies at two temperatures and the next sweep.

    Parameters
    ----------
    machine : BoltzmannMachine
        The target, at β = 1.
    reference : BoltzmannMachine
        The start, at β = 0; the same machine with W = 0.
    generator : torch.Generator

    Raises
    ------
    GibbsianError
        If the reference does not fit the machine, or the machine has no finite log Z.
    """

    def __init__(
        self, machine: BoltzmannMachine, reference: BoltzmannMachine, generator: Generator
    ) -> None:
        check_ends(machine, reference)
        self.machine, self.generator = machine, generator
        self.path = BaseRatePath(reference, machine)
        self.layers: list[Tensor] = []
        self.fields: dict[int, Tensor] = {}

    def start(self, layers: list[Tensor]) -> None:
        """Place the chains; the odd layers may hold anything."""
        self.layers = layers
        self.fields = self.machine.fields(1, layers)

    def draw(self, chains: int) -> None:
        """Start from exact samples of the reference."""
        self.start(list(self.path.draw(chains, self.generator)))

    def gain(self, low: float, high: float) -> Float[Tensor, " chains"]:
        """Return F_low − F_high at the chains' even layers, the odd ones summed out, in float64."""
        return self.path.gain(self.layers, self.fields, low, high)

    def sweep(self, beta: float) -> None:
        """Move the even layers by one Gibbs sweep at β: odd given even, then even given odd."""
        now = self.path.at(beta)
        fields = {i: f * beta for i, f in self.fields.items()}
        draw(now, self.layers, 1, self.generator, fields=fields)
        draw(now, self.layers, 0, self.generator)
        self.fields = self.machine.fields(1, self.layers)


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
