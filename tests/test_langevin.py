"""Langevin moves: variances that are known, the kit's distributions, and twins that must fail."""

import math

import pytest
import torch
from test_machine import pair, small_machine
from torch import Generator

import gibbsian as gb
from gibbsian import testing
from gibbsian.errors import GibbsianError
from gibbsian.machine import Clamp
from gibbsian.samplers import ChainState, Langevin, run
from gibbsian.units import Bernoulli, Gaussian, Mixed

_WAYS = [("summed", True), ("summed", False), ("sampled", True), ("sampled", False)]
_GAMMA = torch.tensor([0.25, 1.0, 4.0])
_ETA = 0.3


def _free(gamma: torch.Tensor = _GAMMA) -> gb.BoltzmannMachine:
    """Gaussian visibles with no couplings."""
    machine = gb.gaussian_rbm(len(gamma), 2).double()
    with torch.no_grad():
        machine.joints[0].weight.zero_()
        machine.layers[0].log_precision.copy_(gamma.log())
        machine.layers[0].bias.copy_(gamma * 2)  # mean 2
    return machine


def _score(sampler: Langevin, batch: int, truth: torch.Tensor) -> float:
    """Return how far variances are from the truth, in standard errors, with `batch` chains at once."""
    machine, generator = _free(), Generator().manual_seed(batch)
    state = sampler.init(machine, torch.full((batch, 3), 2.0).double(), generator)
    state, _ = run(sampler, machine, state, 4, generator)
    found = []
    for _ in range(max(10, 150 // batch)):  # a step of ten moves forgets all but 1/1000
        state, _ = sampler.step(machine, state, generator)
        found.append(state.layers[0])
    x = torch.cat(found) - 2
    error = truth * math.sqrt(2 / len(x))
    return float(((x**2).mean(dim=0) - truth).abs().div(error).max())


class Divided(Langevin):
    """Energy and gradient divided by the number of chains, the noise not."""

    def _look(self, machine, layers, clamps):
        energy, drift = super()._look(machine, layers, clamps)
        return energy / len(drift), drift / len(drift)


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize(("hidden", "adjusted"), _WAYS)
def test_variance_without_couplings(batch, hidden, adjusted):
    """1/γ where adjusted, 1/(γ(1 − ηγ/2)) where not, whatever the number of chains."""
    sampler = Langevin(0.5, adjusted, hidden, moves=10)
    truth = 1 / _GAMMA.double() if adjusted else 1 / (_GAMMA.double() * (1 - 0.5 / 2))
    assert _score(sampler, batch, truth) < 4.5


def test_variance_of_moves_of_one_size():
    sampler = Langevin(_ETA, adjusted=False, scaled=False)
    truth = 1 / (_GAMMA * (1 - _ETA * _GAMMA / 2)).double()
    machine, generator = _free(), Generator().manual_seed(0)
    state = sampler.init(machine, torch.full((4000, 3), 2.0).double(), generator)
    state, _ = run(sampler, machine, state, 80, generator)
    x = state.layers[0] - 2
    error = truth * math.sqrt(2 / len(x))
    assert float(((x**2).mean(dim=0) - truth).abs().div(error).max()) < 4.5


@pytest.mark.parametrize("adjusted", [True, False])
def test_dividing_by_the_batch_would_be_seen(adjusted):
    truth = 1 / _GAMMA.double() if adjusted else 1 / (_GAMMA.double() * (1 - 0.5 / 2))
    assert _score(Divided(0.5, adjusted, moves=10), 100, truth) > 20
    assert _score(Divided(0.5, adjusted, moves=10), 1, truth) < 4.5  # nothing to divide by


@pytest.mark.parametrize("hidden", ["summed", "sampled"])
@pytest.mark.parametrize("name", ["bernoulli", "softmax", "gaussian"])
def test_adjusted_moves_sample_the_machine(name, hidden):
    """Moments and histograms against enumeration of the hidden states."""
    sampler = Langevin(0.6, True, hidden, moves=2)
    testing.check_sampler(sampler, pair("gaussian", name), chains=4000, steps=30)


def test_deep_machines_and_mixed_layers_of_gaussian_units():
    machine = small_machine(Mixed([Gaussian(1), Gaussian(1)]), Bernoulli(2), Bernoulli(1), seed=2)
    for hidden in ("summed", "sampled"):
        sampler = Langevin(0.6, True, hidden, moves=2)
        testing.check_sampler(sampler, machine, chains=3000, steps=30)


@pytest.mark.parametrize("hidden", ["summed", "sampled"])
def test_moves_without_adjustment_are_biased_and_small_ones_little(hidden):
    machine = pair("gaussian", "bernoulli")
    with pytest.raises(AssertionError):
        testing.check_distribution(Langevin(1.0, False, hidden), machine, chains=8000, steps=30)
    small = Langevin(0.02, False, hidden, moves=20)
    testing.check_distribution(small, machine, chains=2000, steps=20)


class NoReturn(Langevin):
    """Metropolis's rule without the proposals' own probabilities."""

    def _move(self, machine, layers, sizes, generator, clamps):
        energy, drift = self._look(machine, layers, clamps)
        v = layers[0]
        noise = torch.randn(v.shape, generator=generator, dtype=v.dtype)
        new = v - sizes * drift + (2 * sizes).sqrt() * noise
        log_r = energy - self._look(machine, [new, *layers[1:]], clamps)[0]
        u = torch.rand(log_r.shape, generator=generator, dtype=v.dtype)
        taken = u.log() < log_r
        return torch.where(taken[:, None], new, v), taken.to(v.dtype)


@pytest.mark.parametrize("hidden", ["summed", "sampled"])
def test_a_wrong_rule_would_be_seen(hidden):
    machine = pair("gaussian", "bernoulli")
    with pytest.raises(AssertionError):
        sampler = NoReturn(0.6, True, hidden, moves=2)
        testing.check_distribution(sampler, machine, chains=8000, steps=30)


@pytest.mark.parametrize("hidden", ["summed", "sampled"])
def test_held_units(hidden):
    machine = pair("gaussian", "bernoulli")
    value = torch.tensor([0.7, 0.0]).double()
    sampler = Langevin(0.6, True, hidden, moves=2)
    for clamps in (
        {0: Clamp(torch.tensor([True, False]), value)},
        {1: Clamp(torch.tensor([True, False]), torch.ones(2).double())},
    ):
        testing.check_sampler(sampler, machine, clamps=clamps, chains=3000, steps=25)


def test_acceptance_is_reported(generator):
    machine = pair("gaussian", "bernoulli")
    for size, adjusted, low, high in ((0.01, True, 0.95, 1), (1.5, True, 0.1, 0.95)):
        sampler = Langevin(size, adjusted)
        state = sampler.init(machine, torch.zeros(500, 2).double(), generator)
        state, info = run(sampler, machine, state, 20, generator)
        assert info is not None
        assert low < float(info.diagnostics["acceptance"].mean()) <= high
    _, info = Langevin(0.1, False).step(machine, ChainState(state.layers), generator)
    assert bool((info.diagnostics["acceptance"] == 1).all())


@pytest.mark.parametrize(
    "units",
    [
        lambda: gb.Bernoulli(3),
        lambda: gb.ReLU(3),
        lambda: gb.Softmax(1, 3),
        lambda: Mixed([Gaussian(2), Bernoulli(1)]),
    ],
)
def test_layers_that_are_not_real_are_refused(units):
    with pytest.raises(GibbsianError, match="Gaussian units throughout"):
        gb.sample(gb.layered(units(), Bernoulli(2)), 4, 3, sampler=Langevin())


def test_impossible_settings():
    for settings, says in (
        ({"size": 0.0}, "must be positive"),
        ({"size": math.nan}, "finite number"),
        ({"hidden": "held"}, "summed or sampled"),
        ({"moves": 0}, "at least 1"),
    ):
        with pytest.raises(GibbsianError, match=says):
            Langevin(**settings)
    with pytest.raises(GibbsianError, match="must stay below 2"):
        gb.sample(_free(), 4, 3, sampler=Langevin(2.0))
    with pytest.raises(GibbsianError, match=r"come to 4 .* below 0.5"):
        gb.sample(_free(), 4, 3, sampler=Langevin(1.0, scaled=False))
    assert len(gb.sample(_free(), 4, 3, sampler=Langevin(0.4, scaled=False)).samples) == 4
