"""Gibbs sampling driven by a random inverse temperature."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number, whole
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamps
from gibbsian.samplers.base import ChainState, Info, Sampler
from gibbsian.samplers.gibbs import Gibbs, draw
from gibbsian.units import base as unit

# The largest coupling norm that β may give a machine whose unbounded units meet.
_NORM = 0.99


class Driven(Sampler):
    """Gibbs steps whose couplings each chain scales by a random β of its own (paysage's driven sampler).

    β follows an autoregressive Gamma process (Gouriéroux & Jasiak 2006) of mean 1: see `gamma_step`. Its
    times below 1 carry chains over barriers. With a standard deviation above 0 the chains do **not** sample
    the machine but a perturbed distribution; give `steps`, over which it falls linearly to 0, and go on for a
    while with what then is plain Gibbs. Even so the weights of the modes are those that the drive left
    behind: tempering corrects them, this does not.

    Parameters
    ----------
    std : float
        Standard deviation of β at the start, from 0 to 1; 0 is block Gibbs, bit for bit.
    momentum : float
        Autocorrelation of β from step to step, at least 0 and below 1.
    steps : int, optional
        Steps after which the standard deviation is 0. Unless given, it stays.

    Raises
    ------
    GibbsianError
        If a setting is impossible.

    Notes
    -----
    ``Info.diagnostics`` holds ``beta`` (chains,). Where unbounded units meet, β stays below what keeps the
    scaled machine normalisable.
    """

    def __init__(self, std: float = 0.6, momentum: float = 0.9, steps: int | None = None) -> None:
        self.std = number(std, "The standard deviation of a driven sampler")
        self.momentum = number(momentum, "The momentum of a driven sampler")
        if not 0 <= self.std <= 1:
            raise GibbsianError(
                f"The standard deviation of a driven sampler lies from 0 to 1, not at {std!r}."
            )
        if not 0 <= self.momentum < 1:
            raise GibbsianError(
                f"The momentum of a driven sampler is at least 0 and below 1, not {momentum!r}."
            )
        self.steps = (
            None if steps is None else whole(steps, "The number of steps of a driven sampler", 0)
        )
        # A visible layer drawn at another β is not the one that its field at β = 1 speaks of.
        self.draws_visible = self.std == 0
        self._gibbs = Gibbs()

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Start as Gibbs does, at β = 1."""
        layers = self._gibbs.init(machine, visible, generator, clamps).layers
        wide = unit.accumulator(layers[0])
        beta = torch.ones(len(visible), dtype=wide, device=layers[0].device)
        return ChainState(layers, {"beta": beta, "steps": torch.zeros((), dtype=torch.int64)})

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Move β, then draw the even layers and the odd ones with couplings β W."""
        done, beta = state.extra["steps"], state.extra["beta"]
        std = self._std(int(done))
        if std == 0:
            beta = torch.ones_like(beta)
            after, info = self._gibbs.step(machine, state, generator, clamps)
            layers, fields = after.layers, info.fields
        else:
            beta = _bounded(machine, gamma_step(beta, std, self.momentum, generator))
            moved = list(state.layers)
            for parity in (0, 1):
                fields = machine.fields(parity, moved)
                scaled = {i: beta[:, None].to(f) * f for i, f in fields.items()}
                draw(machine, moved, parity, generator, clamps, scaled)
            layers = tuple(moved)
        after = replace(state, layers=layers, extra={"beta": beta, "steps": done + 1})
        return after, Info(fields, {"beta": beta})

    def _std(self, done: int) -> float:
        """Return the standard deviation after so many steps."""
        if self.steps is None:
            return self.std
        return self.std * max(0.0, 1 - done / self.steps) if self.steps else 0.0


def gamma_step(
    beta: Float[Tensor, " chains"], std: float, momentum: float, generator: Generator | None
) -> Float[Tensor, " chains"]:
    """Move an autoregressive Gamma process of mean 1 by one step.

    z ~ Poisson(φ β/c), then β′ ~ c · Gamma(1/σ² + z), with c = (1 − φ) σ²: its stationary law is Gamma with
    mean 1 and standard deviation σ, and its autocorrelation φᵗ.

    Parameters
    ----------
    beta : Tensor (chains,)
    std : float
        σ > 0.
    momentum : float
        φ in [0, 1).
    """
    scale = (1 - momentum) * std**2
    z = torch.poisson(momentum * beta / scale, generator=generator)
    shape = z + 1 / std**2
    # torch.distributions draws Gamma variables by this function too, but from the global generator.
    return scale * torch._standard_gamma(shape, generator=generator)  # pyright: ignore[reportPrivateImportUsage]


def _bounded(machine: BoltzmannMachine, beta: Tensor) -> Tensor:
    """Keep β W normalisable where unbounded units meet."""
    norm = machine.coupling_norm()
    return beta.clamp(max=max(1.0, _NORM / norm)) if norm > 0 else beta
