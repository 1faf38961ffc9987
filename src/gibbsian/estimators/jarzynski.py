"""Weighted persistent contrastive divergence: chains that know how far they lag behind, and log Z."""

import copy
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import precision
from gibbsian.arguments import number, whole
from gibbsian.errors import TrainingError
from gibbsian.estimators.base import Estimator, Phases, Stacked, beneath, inferred
from gibbsian.estimators.chains import check_chains, check_memory, present
from gibbsian.estimators.online import OnlineLogZ, effective, log_mean_exp, weights_variance
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath
from gibbsian.samplers import ChainState
from gibbsian.samplers.gibbs import draw

# Of the chains' number, the effective one that a step of the first bridge must keep.
_SURE = 0.9
# A step of β is not made smaller than this.
_SMALLEST = 1e-3
_VARIANCE = "log_z_variance"


class Jarzynski(Estimator):
    """PCD whose chains carry the weights that make up for their lag (Carbone et al. 2023).

    The chains x, states of the even layers, sample the parameters θ_t. Once these have moved,

        lw(x) += F_t(x) − F_{t+1}(x)

    and k Gibbs steps under θ_{t+1} follow, which leave the weighted chains right. Averages with weights
    softmax(lw) are then those of the machine, however fast it is trained, in the limit of many chains. When
    the effective number of chains falls below a threshold, they are resampled in proportion to their weights
    (systematic resampling), log Z takes up log mean exp(lw), and the weights begin again at 1.

    By Jarzynski's equality Z_{t+1} = Z_0 · E exp(lw), so that log Z is known all along training. This holds
    for chains that the parameters do not depend on. The chains of the gradient are none: the parameters
    are moved against these very chains, which takes about lr · tr Cov(T)/N nats off their log Z at every
    update (a nat or ten in a short run). So other chains, the witnesses, are weighted likewise, enter no
    gradient, and tell log Z.

    The chains start at the machine with W = 0, whose samples and log Z are exact, and are brought to the
    first couplings by the same weights. They are never rounded, whatever the precision asked for: the
    weights hold only if energies and steps are of one machine.

    Parameters
    ----------
    steps : int
        Gibbs steps k between updates.
    chains : int
        Number N of persistent chains that the gradient is taken from.
    witnesses : int
        Number of chains that tell log Z, with an error that falls as its square root; 0 for no log Z. Few of
        them miss what is rare, and log Ẑ then falls short: on MNIST (784-500) 100 witnesses were 3.6 nats
        below annealed importance sampling after 600 updates at rate 0.02.
    threshold : float
        Resampling happens where the effective number of chains is below this share of N.

    Raises
    ------
    TrainingError
        If a count or the threshold is impossible.

    References
    ----------
    Carbone, Hua, Coste & Vanden-Eijnden (2023), "Efficient training of energy-based models using
    Jarzynski equality".
    """

    def __init__(
        self, steps: int = 1, chains: int = 100, witnesses: int = 100, threshold: float = 0.3
    ) -> None:
        self.steps, self.chains = check_chains("Jarzynski's PCD", steps, chains)
        self.witnesses = whole(witnesses, "The number of witnesses", 0, TrainingError)
        if not 0 <= number(threshold, "The threshold of resampling", TrainingError) <= 1:
            raise TrainingError(f"The threshold of resampling lies in [0, 1], not {threshold!r}.")
        self.threshold = float(threshold)
        self.config = {
            "kind": "jarzynski", "steps": self.steps, "chains": self.chains,
            "witnesses": self.witnesses, "threshold": self.threshold,
        }  # fmt: skip

    @torch.no_grad()
    def init(
        self, machine: BoltzmannMachine, data: Float[Tensor, "rows n"], generator: Generator | None
    ) -> ChainState:
        """Draw exact samples at W = 0 and bring them to the machine; `data` are not used.

        Raises
        ------
        TrainingError
            If that many chains would not fit into memory.
        """
        count = self.chains + self.witnesses
        check_memory(machine, count)
        machine = precision.full(machine)
        origin = copy.deepcopy(machine)
        for c in origin.joints:
            c.weight.zero_()
        path = BaseRatePath(origin, machine)
        layers = path.draw(count, generator)
        energy = origin.marginal_energy(layers)
        log_z = torch.tensor(path.log_z0(), dtype=energy.dtype, device=energy.device)
        none = torch.zeros((), dtype=torch.float64, device=energy.device)
        state = _state(layers, torch.zeros_like(energy), energy, log_z, none)
        beta = 0.0
        while beta < 1:
            beta = self._next(path, state, beta)
            state = self._follow(path.at(beta), state, generator)[0]
        # The chains' energies are of the machine at β = 1 now, which is the machine.
        return state

    def _next(self, path: BaseRatePath, state: ChainState, beta: float) -> float:
        """Return the farthest β to which weights, begun anew, lose little."""
        low, high, tried = beta, 1.0, 1.0
        while True:
            change = state.extra["energy"] - path.at(tried).marginal_energy(state.layers)
            if effective(change) >= _SURE * len(change):
                low = tried
            else:
                high = tried
            if high - low <= _SMALLEST or low == 1:
                return max(low, min(1.0, beta + _SMALLEST))
            tried = (low + high) / 2

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, x: Float[Tensor, "batch n"],
        chains: ChainState | None, generator: Generator | None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> Phases:  # fmt: skip
        """Weight the chains for the machine's last move, and move them by k steps.

        Sample weights weigh the data only.
        """
        machine = precision.full(machine)
        deep = inferred(machine, x)
        chains, fields = self._follow(machine, present("Jarzynski's PCD", chains), generator)
        # The witnesses come last.
        n = self.chains
        rows = tuple(s[:n] for s in chains.layers)
        known = {i: f[:n] for i, f in fields.items()}
        share = chains.extra["log_weights"][:n].softmax(dim=0)
        terms = beneath(machine, (x, x), deep, rows, known)
        return Stacked(terms, len(x), (weights, share), chains)

    def _follow(
        self, machine: BoltzmannMachine, chains: ChainState, generator: Generator | None
    ) -> tuple[ChainState, Mapping[int, Tensor]]:
        """Take the chains to the machine's parameters from those that they were weighted for."""
        layers, extra = list(chains.layers), chains.extra
        fields = machine.fields(1, layers)
        now = machine.marginal_energy(layers, fields=fields)
        weights, log_z = extra["log_weights"] + extra["energy"] - now, extra["log_z"]
        variance = extra.get(_VARIANCE, torch.zeros((), dtype=torch.float64, device=now.device))
        n, changed, order, parts = self.chains, False, [], []
        for first, w in ((0, weights[:n]), (n, weights[n:])):
            poor = len(w) > 0 and effective(w) < self.threshold * len(w)
            changed = changed or poor
            if poor and first:
                log_z, variance = log_z + log_mean_exp(w), variance + weights_variance(w)
            every = torch.arange(len(w), device=w.device)
            order.append(first + (resampled(w, generator) if poor else every))
            parts.append(torch.zeros_like(w) if poor else w)
        if changed:
            kept, weights = torch.cat(order), torch.cat(parts)
            layers, fields = [s[kept] for s in layers], {i: f[kept] for i, f in fields.items()}
        # Weights are of the even layers alone: the odd ones have to be drawn anew given these.
        draw(machine, layers, 1, generator, fields=dict(fields))
        for _ in range(self.steps):
            draw(machine, layers, 0, generator)
            fields = draw(machine, layers, 1, generator)
        energy = machine.marginal_energy(layers, fields=fields)
        return _state(tuple(layers), weights, energy, log_z, variance), fields

    @torch.no_grad()
    def log_z(self, chains: ChainState, machine: BoltzmannMachine | None = None) -> float:
        """Return the running estimate of log Z, from the witnesses.

        Parameters
        ----------
        chains : ChainState
            Chains of this estimator: ``trainer.chains``, or those of a step's phases.
        machine : BoltzmannMachine, optional
            The machine as it is after the update that followed; without it the estimate is of the
            machine that the chains were last moved by, one update ago.

        Returns
        -------
        float
            log Ẑ in nats, on average a lower bound, since Ẑ is right on average.

        Raises
        ------
        TrainingError
            If there are no witnesses.
        """
        if not self.witnesses:
            raise TrainingError(
                "Without witnesses there is no estimate of log Z; give some as witnesses=…."
            )
        return float(chains.extra["log_z"] + log_mean_exp(self._weights(chains, machine)))

    def _weights(self, chains: ChainState, machine: BoltzmannMachine | None) -> Tensor:
        """Return the log weights of the witnesses, taken on to a machine where one is given."""
        weights = chains.extra["log_weights"]
        if machine is not None:
            now = precision.full(machine).marginal_energy(chains.layers)
            weights = weights + chains.extra["energy"] - now
        return weights[self.chains :]

    @torch.no_grad()
    def online_log_z(
        self, machine: BoltzmannMachine, chains: ChainState | None
    ) -> OnlineLogZ | None:
        """Return log Z from the witnesses, None without any.

        Its variance is the sum of 1/ESS − 1/n at each resampling and now: the descent of the witnesses, which
        resampling makes alike, is left out, so it is somewhat too small.
        """
        if chains is None or not self.witnesses or "log_weights" not in chains.extra:
            return None
        weights = self._weights(chains, machine)
        variance = float(chains.extra.get(_VARIANCE, 0.0)) + weights_variance(weights)
        source = f"the {self.witnesses} witnesses of its Jarzynski-weighted training"
        return OnlineLogZ(
            self.log_z(chains, machine), math.sqrt(variance), effective(weights), source
        )

    def report(self, machine: BoltzmannMachine, chains: ChainState | None) -> dict[str, float]:
        """Return log Z of the last iterate in nats, and the effective shares of the chains."""
        if chains is None:
            return {}
        gradient, witnesses = self.shares(chains)
        found = {"effective_chains": gradient}
        known = self.online_log_z(machine, chains)
        if known is not None:
            found |= {
                "log_z": known.log_z, "log_z_standard_error": known.standard_error,
                "effective_witnesses": witnesses,
            }  # fmt: skip
        return found

    def shares(self, chains: ChainState) -> tuple[float, float]:
        """Return the effective shares of the gradient's chains and of the witnesses (1 without any)."""
        n, weights = self.chains, chains.extra["log_weights"]
        parts = (weights[:n], weights[n:])
        gradient, witnesses = (effective(w) / len(w) if len(w) else 1.0 for w in parts)
        return gradient, witnesses


def _state(
    layers: tuple[Tensor, ...], log_weights: Tensor, energy: Tensor, log_z: Tensor, variance: Tensor
) -> ChainState:
    extra = {"log_weights": log_weights, "energy": energy, "log_z": log_z, _VARIANCE: variance}
    return ChainState(layers, extra)


def resampled(log_weights: Float[Tensor, " n"], generator: Generator | None) -> Tensor:
    """Return which chains are kept, some of them several times: systematic resampling.

    Each is kept n·w/Σw times on average, and never more than one off that number (Carpenter et al. 1999).
    """
    n, like = len(log_weights), log_weights
    ends = log_weights.softmax(dim=0).cumsum(dim=0)
    u = torch.rand((), generator=generator, dtype=like.dtype, device=like.device)
    points = (torch.arange(n, dtype=like.dtype, device=like.device) + u) / n
    return torch.searchsorted(ends, points * ends[-1]).clamp(max=n - 1)
