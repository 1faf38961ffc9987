"""Training along a trajectory of checkpoints, with exchange: chains that cannot be lost between modes."""

import copy
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gibbsian.arguments import number
from gibbsian.bennett import log_ratio, standard_error
from gibbsian.errors import TrainingError
from gibbsian.estimators.base import Estimator, Phases, Stacked, check_count, inferred
from gibbsian.estimators.chains import check_chains, check_memory, present
from gibbsian.estimators.online import OnlineLogZ, effective, log_mean_exp, weights_variance
from gibbsian.estimators.waiting import Clock
from gibbsian.machine import BoltzmannMachine
from gibbsian.moments import Terms
from gibbsian.path import BaseRatePath, reference
from gibbsian.precision import refresh
from gibbsian.samplers import ChainState
from gibbsian.samplers.gibbs import draw

# Below this acceptance, or this effective share of the chains, the chains have lost their checkpoint.
_LOST = 0.1
# Sweeps of equilibration, in autocorrelation times, and the most there may be.
_LONG, _CAP = 20, 10_000
# Sweeps between looks at whether the new machine has lost the checkpoint.
_LOOK = 100


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
        extra["clean.energy"] = base.marginal_energy(clean)
        extra["reservoir.energy"] = extra["clean.energy"].clone()
        extra["tau"] = torch.full((4,), 0.5, dtype=torch.float64)  # exact samples forget at once
        extra["log_z"] = torch.tensor(path.log_z0(), dtype=torch.float64)
        extra["log_z_variance"] = torch.tensor(0.0, dtype=torch.float64)
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
        walk.steps(self.steps - 1)
        walk.move()
        terms, model = _beside(machine, x, walk.layers)
        # The odd layers are those that the even ones were drawn from.
        after = ChainState(tuple(walk.layers), extra)
        extra["energy"] = machine.marginal_energy(walk.layers, fields=model)
        rate = 0.5 ** int(counts[_HALVINGS])
        return Stacked(terms, len(x), (weights, None), after, rate=rate, restarted=restarted)

    def log_z(self, chains: ChainState) -> float:
        """Return log Z of the last checkpoint, in nats: exact at the first, Bennett's ratios after."""
        return float(chains.extra["log_z"])

    def _error(self, chains: ChainState) -> float:
        return math.sqrt(float(chains.extra.get("log_z_variance", 0.0)))

    @torch.no_grad()
    def online_log_z(
        self, machine: BoltzmannMachine, chains: ChainState | None
    ) -> OnlineLogZ | None:
        """Return log Z of a machine from the last checkpoint's, by weights on the checkpoint's own samples.

        log Z = log Z_c + log mean exp(F_c − F), which errs downwards on average.
        """
        if chains is None or "clean.energy" not in chains.extra:
            return None
        extra = chains.extra
        layers = [extra.get(f"clean.{i}", extra["clean.0"]) for i in range(len(machine.layers))]
        weights = (extra["clean.energy"] - machine.marginal_energy(layers)).double()
        variance = self._error(chains) ** 2 + weights_variance(weights)
        value = self.log_z(chains) + float(log_mean_exp(weights))
        source = f"the {int(extra['counts'][_CHECKPOINTS])} checkpoints of its training along a trajectory"
        return OnlineLogZ(value, math.sqrt(variance), effective(weights), source)

    def report(self, machine: BoltzmannMachine, chains: ChainState | None) -> dict[str, float]:
        """Return log Z of the last checkpoint in nats, the numbers of checkpoints and returns, and τ_int.

        The last is in sweeps of the last checkpoint's exchange, from the survival of chains and from their
        flipping signs (`gibbsian.estimators.waiting`).
        """
        if chains is None:
            return {}
        counts, error = chains.extra["counts"].tolist(), self._error(chains)
        found = {
            "log_z_checkpoint": self.log_z(chains), "checkpoints": counts[_CHECKPOINTS],
            "returns": counts[_REJECTIONS], "tau": float(chains.extra["tau"][0]),
            "tau_flips": float(chains.extra["tau"][2]),
        }  # fmt: skip
        # Records hold numbers only, and no overlap between two checkpoints leaves no error.
        return found | ({"log_z_standard_error": error} if math.isfinite(error) else {})

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


def _beside(
    machine: BoltzmannMachine, x: Tensor, chains: Sequence[Tensor]
) -> tuple[Terms, dict[int, Tensor]]:
    """Return the terms of both, from one product where it can be, and the fields of the chains."""
    deep = inferred(machine, x)
    if deep is not None:
        fields = machine.fields(1, chains)
        return deep.above(machine.terms(chains, 1, fields)), fields
    rows = [torch.cat([x, chains[0]]), x]
    fields = machine.fields(1, rows)
    return machine.terms(rows, 1, fields), {i: f[len(x) :] for i, f in fields.items()}


class _Walk:
    """The chains of the machine, the samples of its checkpoint, and what happens between them.

    `fields` are the machine's on the odd layers of the chains, None until the first product with them.
    """

    def __init__(
        self, method: PTT, machine: BoltzmannMachine, frozen: BoltzmannMachine, layers: list[Tensor],
        extra: dict[str, Tensor], generator: Generator | None,
    ) -> None:  # fmt: skip
        self.method, self.machine, self.frozen = method, machine, frozen
        self.layers, self.extra, self.generator = layers, extra, generator
        self.even = list(machine.parity(0))
        self.fields: dict[int, Tensor] | None = None

    def meet(self, energy: Float[Tensor, " chains"] | None = None) -> tuple[float, float]:
        """Put each chain beside a sample of its own; return mean acceptance and effective share.

        Chains lag behind the machine by what it moved since `energy` was theirs; they are weighted
        with w = exp(F_then − F_now).
        """
        n, size = len(self.layers[0]), len(self.extra["reservoir.0"])
        device = self.layers[0].device
        self.partners = torch.randperm(size, generator=self.generator, device=device)[:n]
        self.theirs = [
            self.extra[f"reservoir.{i}"][self.partners] if i in self.even else s
            for i, s in enumerate(self.layers)
        ]
        if self.fields is None:  # one product for both
            pairs = enumerate(zip(self.layers, self.theirs, strict=True))
            both = [torch.cat(pair) if i in self.even else pair[0] for i, pair in pairs]
            found = self.machine.fields(1, both)
            self.fields = {i: f[:n] for i, f in found.items()}
            self.met = {i: f[n:] for i, f in found.items()}
        else:
            self.met = self.machine.fields(1, self.theirs)
        now = self.machine.marginal_energy(self.layers, fields=self.fields)
        # The checkpoint stays, so that the energies of its samples are known.
        self.then = (
            self.frozen.marginal_energy(self.layers),
            self.extra["reservoir.energy"][self.partners],
        )
        other = self.machine.marginal_energy(self.theirs, fields=self.met)
        self.delta = (now - self.then[0]) - (other - self.then[1])
        w = torch.ones_like(self.delta) if energy is None else torch.softmax(energy - now, dim=0)
        accepted = self.delta.clamp(max=0).exp()
        return float((w * accepted).sum() / w.sum()), float(w.sum() ** 2 / (w.square().sum() * n))

    def swap(self) -> Bool[Tensor, " chains"]:
        """Exchange by Metropolis' rule; the chain's state goes into the reservoir."""
        u = torch.rand(self.delta.shape, generator=self.generator, device=self.delta.device)
        hit = u.log() < self.delta
        column, fields = hit[:, None], self.fields
        assert fields is not None  # they have met
        for i in self.even:
            mine, theirs = self.layers[i], self.theirs[i]
            self.layers[i] = torch.where(column, theirs, mine)
            self.extra[f"reservoir.{i}"][self.partners] = torch.where(column, mine, theirs)
        self.extra["reservoir.energy"][self.partners] = torch.where(hit, *self.then)
        self.fields = {i: torch.where(column, self.met[i], f) for i, f in fields.items()}
        return hit

    def move(self) -> None:
        """Make half a Gibbs step each way, which leaves the new fields open."""
        draw(self.machine, self.layers, 1, self.generator, fields=self.fields)
        draw(self.machine, self.layers, 0, self.generator)
        self.fields = None

    def steps(self, number: int) -> None:
        """Make Gibbs steps."""
        for _ in range(number):
            self.move()
            self.fields = self.machine.fields(1, self.layers)

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
        self.fields = self.machine.fields(1, self.layers)

    def _renew(self) -> None:
        """Fill the reservoir with the checkpoint's own samples."""
        for k in ("energy", *self.even):
            self.extra[f"reservoir.{k}"] = self.extra[f"clean.{k}"].clone()

    def _sweep(self) -> tuple[float, Bool[Tensor, " chains"]]:
        """Exchange, and move the chains by k Gibbs steps."""
        a, _ = self.meet()
        hit = self.swap()
        self.steps(self.method.steps)
        return a, hit

    def freeze(self) -> bool:
        """Bring the chains to equilibrium and make their machine the checkpoint; False if that fails."""
        self._renew()
        clock = Clock()
        while clock.sweeps < max(_LONG, _LONG * max(clock.times())):
            # A lost checkpoint shows early, and its times are the longest.
            if clock.sweeps >= _CAP or (
                clock.sweeps % _LOOK == 0 < clock.sweeps and clock.late() < _LOST
            ):
                return False
            clock.tick(*self._sweep())
        if clock.late() < _LOST:
            return False
        self.extra["tau"] = torch.tensor([*clock.times(), *clock.flips()], dtype=torch.float64)
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
        energy = self.machine.marginal_energy(new)
        w0 = self.machine.marginal_energy(old) - extra["clean.energy"]
        w1 = self.frozen.marginal_energy(new) - energy
        ratio = log_ratio(w0, w1)
        extra["log_z"] = extra["log_z"] + ratio
        before = extra.get("log_z_variance", torch.tensor(0.0, dtype=torch.float64))
        extra["log_z_variance"] = before + standard_error(w0, w1, ratio) ** 2
        extra["clean.energy"] = energy
        for k, p in self.machine.named_parameters():
            extra[f"theta.{k}"] = p.detach().clone()
        for i in self.even:
            extra[f"clean.{i}"] = clean[i]
        self._renew()
        counts = extra["counts"]
        counts[_CHECKPOINTS] += 1
        counts[_SINCE] = 0
        counts[_HALVINGS] = (counts[_HALVINGS] - 1).clamp(min=0)
