"""Training along a trajectory of checkpoints, with exchange: chains that cannot be lost between modes."""

import copy
import math

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gibbsian.arguments import number
from gibbsian.bennett import log_ratio
from gibbsian.errors import TrainingError
from gibbsian.estimators.base import Estimator, Phases, Stacked, check_count, posterior
from gibbsian.estimators.chains import check_chains, check_memory, present
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath, reference
from gibbsian.precision import refresh
from gibbsian.samplers import ChainState, Gibbs
from gibbsian.samplers.gibbs import draw

# Below this acceptance, or this effective share of the chains, the chains have lost their checkpoint.
_LOST = 0.1
# Sweeps of equilibration, in autocorrelation times, and the most there may be.
_LONG, _CAP = 20, 10_000


class PTT(Estimator):
    """Parallel trajectory tempering (Béreux, Decelle, Furtlehner, Rosset & Seoane 2025), while training.

    The chains of the machine θ exchange states with equilibrium samples of a checkpoint c of its own
    past, by Metropolis' rule with

        Δ = [F_θ(x) − F_c(x)] − [F_θ(y) − F_c(y)],   accepted where log u < Δ.

    When the mean acceptance falls below `acceptance`, the machine is frozen as the next checkpoint:
    its chains exchange and move until they are at equilibrium, give its own samples, and Bennett's ratio
    gives its log Z. Where that fails, or the chains have strayed too far, training goes back to c with half
    the learning rate. The first checkpoint is the reference machine (W = 0): exact samples, exact log Z.

    Parameters
    ----------
    steps : int
        Gibbs steps k between updates.
    chains : int
        N, the chains of the machine.
    reservoir : int
        Equilibrium samples of the checkpoint, in multiples of N.
    acceptance : float
        The mean acceptance at which a new checkpoint is made.

    Raises
    ------
    TrainingError
        If a setting is impossible.
    """

    def __init__(
        self, steps: int = 1, chains: int = 100, reservoir: int = 10, acceptance: float = 0.3
    ) -> None:
        self.steps, self.chains = check_chains("PTT", steps, chains)
        self.reservoir = check_count(reservoir, "The size of the reservoir")
        if not _LOST < number(acceptance, "The acceptance", TrainingError) < 1:
            raise TrainingError(
                f"The acceptance at which PTT makes a checkpoint lies between {_LOST} and 1, not "
                f"{acceptance!r}."
            )
        self.acceptance = float(acceptance)
        self.config = {
            "kind": "ptt", "steps": self.steps, "chains": self.chains, "reservoir": self.reservoir,
            "acceptance": self.acceptance,
        }  # fmt: skip
        self._gibbs = Gibbs()
        self._frozen: BoltzmannMachine | None = None
        self._loaded: Tensor | None = None

    @torch.no_grad()
    def init(
        self, machine: BoltzmannMachine, data: Float[Tensor, "rows n"], generator: Generator | None
    ) -> ChainState:
        """Start at the reference machine: chains and reservoir are exact samples of it.

        Raises
        ------
        TrainingError
            If chains and reservoir would not fit into memory, or products are rounded.
        """
        size = self.chains * self.reservoir
        check_memory(
            machine, self.chains + 2 * size,
            f"{self.chains:,} chains, a reservoir of {size:,} states and a clean copy of it",
            "ask for fewer chains or a smaller reservoir",
        )  # fmt: skip
        first = machine.joints[0].up(data[:1])
        if first.dtype != data.dtype:
            raise TrainingError(
                "PTT compares energies, which bfloat16 is too coarse for; train with precision fp32."
            )
        base = reference(machine, data)
        path = BaseRatePath(base, machine)
        chains = path.draw(self.chains, generator)
        clean = path.draw(self.chains * self.reservoir, generator)
        extra = {f"theta.{k}": p.detach().clone() for k, p in base.named_parameters()}
        extra |= {f"clean.{i}": clean[i] for i in machine.parity(0)}
        extra |= {f"reservoir.{i}": clean[i].clone() for i in machine.parity(0)}
        extra["energy"] = base.marginal_energy(chains)
        extra["log_z"] = torch.tensor(path.log_z0(), dtype=torch.float64)
        extra["counts"] = torch.tensor([0, 1, 0, 0])  # see _SINCE and those after it
        return ChainState(tuple(chains), extra)

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, x: Float[Tensor, "batch n"],
        chains: ChainState | None, generator: Generator | None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> Phases:  # fmt: skip
        """Exchange with the checkpoint, make a new one or go back where needed, and move the chains.

        The reservoir is changed in place.
        """
        chains = present("PTT", chains)
        extra = dict(chains.extra)
        counts = extra["counts"] = extra["counts"].clone()
        counts[_SINCE] += 1
        frozen = self._checkpoint(machine, extra)
        walk = _Walk(self, machine, frozen, list(chains.layers), extra, generator)
        a, ess = walk.meet(extra["energy"])
        restarted = False
        if ess < _LOST or a < _LOST or (a < self.acceptance and counts[_SINCE] <= 1):
            restarted = True
        else:
            walk.swap()
            if a < self.acceptance:
                restarted = not walk.freeze()
        if restarted:
            walk.go_back()
        state = ChainState(tuple(walk.layers))
        data = posterior(machine, x, generator)
        for _ in range(self.steps - 1):
            state, _ = self._gibbs.step(machine, state, generator)
        together = self._gibbs.beside(machine, state, data, generator)
        assert together is not None
        state, rows, fields = together
        terms = machine.terms(rows, 1, fields)
        model = {i: f[len(x) :] for i, f in fields.items()}
        extra["energy"] = machine.marginal_energy(state.layers, fields=model)
        after = ChainState(state.layers, extra)
        rate = 0.5 ** int(counts[_HALVINGS])
        return Stacked(terms, len(x), (weights, None), after, rate=rate, restarted=restarted)

    def log_z(self, chains: ChainState) -> float:
        """Return log Z of the last checkpoint, in nats: exact at the first, Bennett's ratios after."""
        return float(chains.extra["log_z"])

    def report(self, machine: BoltzmannMachine, chains: ChainState | None) -> dict[str, float]:
        """Return log Z of the last checkpoint in nats, and how many checkpoints and returns there were."""
        if chains is None:
            return {}
        counts = chains.extra["counts"].tolist()
        return {
            "log_z_checkpoint": self.log_z(chains), "checkpoints": counts[_CHECKPOINTS],
            "returns": counts[_REJECTIONS],
        }  # fmt: skip

    def _checkpoint(self, machine: BoltzmannMachine, extra: dict[str, Tensor]) -> BoltzmannMachine:
        """Return the machine of the checkpoint, one object that is filled anew when it has changed."""
        if self._frozen is None:
            self._frozen = copy.deepcopy(machine)
        mark = next(t for k, t in extra.items() if k.startswith("theta."))
        if self._loaded is not mark:
            _fill(self._frozen, extra)
            self._loaded = mark
        return self._frozen


# Entries of extra["counts"].
_SINCE, _CHECKPOINTS, _REJECTIONS, _HALVINGS = range(4)


def _fill(machine: BoltzmannMachine, extra: dict[str, Tensor]) -> None:
    """Write a checkpoint's parameters into a machine."""
    for k, p in machine.named_parameters():
        p.copy_(extra[f"theta.{k}"])
    refresh(machine)


class _Walk:
    """The chains of the machine, the samples of its checkpoint, and what happens between them."""

    def __init__(
        self, method: PTT, machine: BoltzmannMachine, frozen: BoltzmannMachine, layers: list[Tensor],
        extra: dict[str, Tensor], generator: Generator | None,
    ) -> None:  # fmt: skip
        self.method, self.machine, self.frozen = method, machine, frozen
        self.layers, self.extra, self.generator = layers, extra, generator
        self.even = list(machine.parity(0))

    def meet(self, energy: Float[Tensor, " chains"] | None = None) -> tuple[float, float]:
        """Put each chain beside a sample of its own; return mean acceptance and effective share.

        Chains lag behind the machine by what it moved since `energy` was theirs; they are weighted
        with w = exp(F_then − F_now).
        """
        n, size = len(self.layers[0]), len(self.extra["reservoir.0"])
        device = self.layers[0].device
        self.partners = torch.randperm(size, generator=self.generator, device=device)[:n]
        both = {i: torch.cat([self.layers[i], self.extra[f"reservoir.{i}"][self.partners]])
                for i in self.even}  # fmt: skip
        state = [both.get(i, self.layers[i]) for i in range(len(self.layers))]
        now, then = (m.marginal_energy(state) for m in (self.machine, self.frozen))
        gap = now - then
        self.delta = gap[:n] - gap[n:]
        w = torch.ones_like(self.delta)
        if energy is not None:
            w = torch.softmax(energy - now[:n], dim=0)
        accepted = self.delta.clamp(max=0).exp()
        return float((w * accepted).sum() / w.sum()), float(w.sum() ** 2 / (w.square().sum() * n))

    def swap(self) -> Bool[Tensor, " chains"]:
        """Exchange by Metropolis' rule; the chain's state goes into the reservoir."""
        u = torch.rand(self.delta.shape, generator=self.generator, device=self.delta.device)
        hit = u.log() < self.delta
        for i in self.even:
            pool, mine = self.extra[f"reservoir.{i}"], self.layers[i]
            theirs = pool[self.partners]
            self.layers[i] = torch.where(hit[:, None], theirs, mine)
            pool[self.partners] = torch.where(hit[:, None], mine, theirs)
        self._draw_odd()
        return hit

    def _draw_odd(self) -> None:
        draw(self.machine, self.layers, 1, self.generator)

    def go_back(self) -> None:
        """Return to the checkpoint, with half the learning rate."""
        counts = self.extra["counts"]
        counts[_REJECTIONS] += 1
        counts[_HALVINGS] += 1
        counts[_SINCE] = 0
        _fill(self.machine, self.extra)
        self._renew()
        n, size = len(self.layers[0]), len(self.extra["clean.0"])
        device = self.layers[0].device
        chosen = torch.randperm(size, generator=self.generator, device=device)[:n]
        for i in self.even:
            self.layers[i] = self.extra[f"clean.{i}"][chosen]
        self._draw_odd()

    def _renew(self) -> None:
        """Fill the reservoir with the checkpoint's own samples."""
        for i in self.even:
            self.extra[f"reservoir.{i}"] = self.extra[f"clean.{i}"].clone()

    def _sweep(self) -> tuple[float, Bool[Tensor, " chains"]]:
        """Exchange, and move the chains by k Gibbs steps."""
        a, _ = self.meet()
        hit = self.swap()
        state = ChainState(tuple(self.layers))
        for _ in range(self.method.steps):
            state, _ = self.method._gibbs.step(self.machine, state, self.generator)
        self.layers = list(state.layers)
        return a, hit

    def freeze(self) -> bool:
        """Bring the chains to equilibrium and make their machine the checkpoint; False if that fails."""
        self._renew()
        clock = _Clock(len(self.layers[0]))
        while clock.sweeps < max(_LONG, _LONG * max(clock.times())):
            if clock.sweeps >= _CAP:
                return False
            clock.tick(*self._sweep())
        if clock.late() < _LOST:
            return False
        stride = max(1, round(2 * clock.times()[0]))
        found = {i: [self.layers[i]] for i in self.even}
        while len(found[0]) < self.method.reservoir:
            for _ in range(stride):
                self._sweep()
            for i in self.even:
                found[i].append(self.layers[i])
        self._adopt({i: torch.cat(parts) for i, parts in found.items()})
        return True

    def _adopt(self, clean: dict[int, Tensor]) -> None:
        """Put the machine and its samples in the place of the checkpoint."""
        extra, n = self.extra, len(self.machine.layers)
        old = [extra.get(f"clean.{i}", extra["clean.0"]) for i in range(n)]
        new = [clean.get(i, clean[0]) for i in range(n)]
        w0, w1 = (
            sign * (self.machine.marginal_energy(s) - self.frozen.marginal_energy(s))
            for sign, s in ((1, old), (-1, new))
        )
        extra["log_z"] = extra["log_z"] + log_ratio(w0, w1)
        for k, p in self.machine.named_parameters():
            extra[f"theta.{k}"] = p.detach().clone()
        for i in self.even:
            extra[f"clean.{i}"] = clean[i]
        self._renew()
        counts = extra["counts"]
        counts[_CHECKPOINTS] += 1
        counts[_SINCE] = 0
        counts[_HALVINGS] = (counts[_HALVINGS] - 1).clamp(min=0)


class _Clock:
    """Autocorrelation times of an exchange, from how long chains go without an accepted swap.

    With S(t) the share of chains without one in t sweeps, τ_int = ½ + Σ_t S(t) and
    τ_exp = max −t/log S(t) over S > 0.05.
    """

    def __init__(self, chains: int) -> None:
        self.sweeps, self._acceptance = 0, []
        self._waiting: Tensor | None = None
        self._survival: list[float] = []

    def tick(self, acceptance: float, hit: Bool[Tensor, " chains"]) -> None:
        """Count a sweep."""
        self.sweeps += 1
        self._acceptance.append(acceptance)
        self._waiting = ~hit if self._waiting is None else self._waiting & ~hit
        self._survival.append(float(self._waiting.double().mean()))

    def times(self) -> tuple[float, float]:
        """Return τ_int and τ_exp in sweeps."""
        slow = [-t / math.log(s) for t, s in enumerate(self._survival, 1) if 0.05 < s < 1]
        stuck = float(self.sweeps) if self._survival and self._survival[-1] == 1 else 0.0
        return 0.5 + sum(self._survival), max([*slow, stuck, 0.5])

    def late(self) -> float:
        """Return the mean acceptance in the later half of the sweeps."""
        kept = self._acceptance[len(self._acceptance) // 2 :]
        return sum(kept) / len(kept)
