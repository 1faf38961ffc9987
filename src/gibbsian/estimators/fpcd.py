"""Fast persistent contrastive divergence: chains pushed on by weights that are learned and forgotten fast."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import fast
from gibbsian.arguments import number
from gibbsian.errors import TrainingError
from gibbsian.estimators.base import (
    Estimator,
    Phases,
    Stacked,
    check_sampler,
    inferred,
)
from gibbsian.estimators.chains import check_chains, check_memory, present
from gibbsian.machine import BoltzmannMachine
from gibbsian.moments import signed
from gibbsian.samplers import ChainState, Sampler
from gibbsian.samplers import start as first_states


class FPCD(Estimator):
    """FPCD-k (Tieleman & Hinton 2009): the chains sample θ + θ_F, with fast weights θ_F.

    After every update θ_F ← decay · θ_F + fast_lr · g, where g is the gradient ⟨T⟩_data − ⟨T⟩_model that
    the machine itself learns from. Where the chains stay long, the fast weights raise the energy, so
    they move on at any learning rate of the machine. Fast weights cover the learned biases and
    couplings of all units and layers; precisions keep to the machine's. The chains sample a machine
    that is always a little off, so the negative phase is biased for any fast_lr > 0; with 0 this is PCD.

    The model's statistics are of the chains' even layers, the odd ones summed out by the machine without
    its fast weights.

    Parameters
    ----------
    steps : int
        Sampler steps k between updates.
    chains : int
        Number of persistent chains.
    start : {"reference", "noise", "data"}
        Where the chains begin: see `PCD`.
    fast_lr : float
        Learning rate of the fast weights, constant over the run.
    decay : float
        What is left of the fast weights after an update.
    sampler : Sampler, optional
        Block Gibbs unless given.

    Raises
    ------
    TrainingError
        If a count, a rate or the decay is impossible.

    References
    ----------
    Tieleman & Hinton (2009), "Using fast weights to improve persistent contrastive divergence".
    """

    def __init__(
        self,
        steps: int = 1,
        chains: int = 100,
        start: str = "reference",
        fast_lr: float = 0.01,
        decay: float = 19 / 20,
        sampler: Sampler | None = None,
    ) -> None:
        self.steps, self.chains = check_chains("FPCD", steps, chains, start)
        if number(fast_lr, "The learning rate of fast weights", TrainingError) < 0:
            raise TrainingError(
                f"The learning rate of fast weights is 0 or positive, not {fast_lr!r}."
            )
        if not 0 <= number(decay, "The decay of fast weights", TrainingError) < 1:
            raise TrainingError(f"The decay of fast weights lies in [0, 1), not {decay!r}.")
        self.start, self.fast_lr, self.decay = start, float(fast_lr), float(decay)
        self.sampler, named = check_sampler(sampler)
        self._shifted: fast.Shifted | None = None  # working memory, written anew at every step
        self.config = {
            "kind": "fpcd", "steps": self.steps, "chains": self.chains, "start": start,
            "fast_lr": self.fast_lr, "decay": self.decay, **named,
        }  # fmt: skip

    def init(
        self, machine: BoltzmannMachine, data: Float[Tensor, "rows n"], generator: Generator | None
    ) -> ChainState:
        """Start the chains, and the fast weights at 0.

        Raises
        ------
        TrainingError
            If that many chains would not fit into memory.
        """
        check_memory(machine, self.chains)
        visible = first_states(machine, self.chains, self.start, generator, data)
        return _joined(self.sampler.init(machine, visible, generator), fast.zeros(machine))

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, x: Float[Tensor, "batch n"],
        chains: ChainState | None, generator: Generator | None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> Phases:  # fmt: skip
        """Move the chains by k steps, then the fast weights; sample weights weigh the data only."""
        chains, overlay = _parted(present("FPCD", chains))
        deep = inferred(machine, x)
        if self._shifted is None or self._shifted.machine is not machine:
            self._shifted = fast.Shifted(machine)
        moved = self._shifted.at(overlay)
        for _ in range(self.steps):
            chains, _ = self.sampler.step(moved, chains, generator)
        if deep is None:
            # The odd layer's entry is replaced by its mean.
            terms = machine.terms((torch.cat([x, chains.layers[0]]), x), 1)
        else:
            terms = deep.above(machine.terms(chains.layers, 1))
        n, m = len(x), len(chains.layers[0])
        gradient = signed(n, m, (weights, None), terms.values[0])
        overlay = fast.after(overlay, terms, gradient, self.decay, self.fast_lr)
        return Stacked(terms, n, (weights, None), _joined(chains, overlay))


def _joined(chains: ChainState, overlay: dict[str, Tensor]) -> ChainState:
    """Put the fast weights beside what the sampler keeps."""
    kept = {fast.PREFIX + k: t for k, t in overlay.items()}
    return ChainState(chains.layers, {**chains.extra, **kept})


def _parted(chains: ChainState) -> tuple[ChainState, dict[str, Tensor]]:
    """Return the sampler's own state and the fast weights."""
    own = {k: t for k, t in chains.extra.items() if not k.startswith(fast.PREFIX)}
    overlay = {
        k.removeprefix(fast.PREFIX): t for k, t in chains.extra.items() if k.startswith(fast.PREFIX)
    }
    return ChainState(chains.layers, own), overlay
