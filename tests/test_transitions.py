"""Tempered transitions and the driven sampler against the listed distribution; and β's own process."""

import math

import pytest
import torch
from test_ising import torus
from test_tempering import BETAS, MACHINES, _reference, _strong
from torch import Generator

from gibbsian import models, testing
from gibbsian.errors import GibbsianError
from gibbsian.machine import Clamp
from gibbsian.path import reference
from gibbsian.samplers import Driven, Gibbs, TemperedTransitions, run, sample
from gibbsian.samplers.driven import gamma_step
from gibbsian.units import Gaussian

# Tempered transitions.


@pytest.mark.parametrize("name", MACHINES)
def test_transitions_leave_the_machine_invariant(name):
    """Few steps after Gibbs has mixed: the proposals alone could spoil it."""
    machine = MACHINES[name]()
    sampler = TemperedTransitions(_reference(machine), BETAS)
    testing.check_sampler(sampler, machine, chains=2500, steps=12)


class Always(TemperedTransitions):
    """Every proposal is accepted."""

    def _accepted(self, log_weight, generator):
        return torch.ones_like(log_weight, dtype=torch.bool)


class Turned(TemperedTransitions):
    """The weight is turned upside down."""

    def _accepted(self, log_weight, generator):
        return super()._accepted(-log_weight, generator)


@pytest.mark.parametrize("wrong", [Always, Turned])
def test_wrong_acceptance_is_found(wrong):
    machine = MACHINES["spin"]()
    with pytest.raises(AssertionError):
        testing.check_distribution(
            wrong(_reference(machine), [0, 1]), machine, chains=3000, steps=12
        )


def test_transitions_with_held_units_and_more_sweeps():
    machine = MACHINES["softmax"]()
    width = machine.layers[0].domain.widths[0]
    mask = torch.zeros(machine.sizes[0], dtype=torch.bool)
    mask[:width] = True
    value = machine.layers[0].domain.noise(1, Generator().manual_seed(5))[0].double()
    sampler = TemperedTransitions(_reference(machine), BETAS, sweeps=2)
    testing.check_sampler(sampler, machine, clamps={0: Clamp(mask, value)}, chains=2500, steps=10)
    odd = Clamp(torch.ones(machine.sizes[1], dtype=torch.bool), torch.ones(machine.sizes[1]))
    with pytest.raises(GibbsianError, match=r"tempered transition holds .* layer 1 is odd.*\.$"):
        sample(machine, 5, 5, clamp={1: odd}, sampler=sampler)


def test_transitions_cross_where_gibbs_does_not():
    machine = _strong()
    x = machine.layers[0].domain.noise(500, Generator().manual_seed(0)).double()
    crossed = {}
    for sampler in (Gibbs(), TemperedTransitions(x)):
        generator, kept, told = Generator().manual_seed(2), [], []

        def visit(i, state, info, kept=kept, told=told):
            kept.append(state.layers[0].sum(1))
            told.append(info.diagnostics.get("acceptance"))

        state = sampler.init(machine, -torch.ones(60, 8).double(), generator)
        run(sampler, machine, state, 15, generator, visit=visit)
        signs = torch.stack(kept).sign()
        crossed[type(sampler).__name__] = int((signs.diff(dim=0).abs() == 2).sum())
    assert crossed["Gibbs"] <= 2 and crossed["TemperedTransitions"] > 100
    # Levels are counted for log weights of a standard deviation of about 1.
    assert 0.3 < float(torch.stack(told).mean()) < 0.95


def test_transitions_cross_the_barrier_of_the_torus():
    machine = torus(4, 0.7)
    up = torch.ones(1, 8)
    sampler = TemperedTransitions(reference(machine, torch.cat([up, -up])))
    flips = []
    for one in (Gibbs(), sampler):
        generator, kept = Generator().manual_seed(0), []
        state = one.init(machine, torch.ones(20, 8), generator)
        run(one, machine, state, 20, generator,
            visit=lambda i, s, _, kept=kept: kept.append(torch.cat(s.layers, dim=1).sum(dim=1)))  # fmt: skip
        flips.append(int((torch.stack(kept).sign().diff(dim=0).abs() == 2).sum()))
    assert flips[0] <= 1 and flips[1] > 40


# Driven.


@pytest.mark.parametrize(("std", "momentum"), [(0.6, 0.9), (0.3, 0.5), (1.0, 0.0)])
def test_beta_has_its_stationary_law(std, momentum):
    """Mean 1, variance σ² and autocorrelation φ over independent chains, in standard errors."""
    generator, chains = Generator().manual_seed(0), 40_000
    beta, scale = torch.ones(chains).double(), 1.0
    for _ in range(1 if momentum == 0 else math.ceil(-12 / math.log(momentum))):
        beta = gamma_step(beta, std, momentum, generator)
    after = gamma_step(beta, std, momentum, generator)
    root = math.sqrt(chains)
    assert abs(float(beta.mean()) - scale) < 4.5 * std / root
    # Of a Gamma law with shape k = 1/σ², the squared deviation has variance σ⁴ (2 + 6/k).
    assert (
        abs(float(((beta - 1) ** 2).mean()) - std**2)
        < 4.5 * std**2 * math.sqrt(2 + 6 * std**2) / root
    )
    products = (beta - 1) * (after - 1)
    assert abs(float(products.mean()) - momentum * std**2) < 4.5 * float(products.std()) / root
    assert bool((beta > 0).all())


def test_a_wrong_scale_of_beta_is_found():
    """Without the factor 1 − φ the variance is another."""
    generator, beta = Generator().manual_seed(0), torch.ones(40_000).double()
    for _ in range(100):
        z = torch.poisson(0.9 * beta / 0.36, generator=generator)
        beta = 0.36 * torch._standard_gamma(z + 0.1 / 0.36, generator=generator)
    assert abs(float(((beta - 1) ** 2).mean()) - 0.36) > 0.1


def test_without_spread_it_is_gibbs_bit_for_bit():
    machine = MACHINES["mixed"]()
    for driven in (Driven(0.0), Driven(0.5, steps=0)):
        ours, theirs = (sample(machine, 20, 7, sampler=s, generator=3) for s in (driven, Gibbs()))
        assert all(
            torch.equal(a, b) for a, b in zip(ours.state.layers, theirs.state.layers, strict=True)
        )
        assert torch.equal(ours.samples, theirs.samples)
    assert torch.equal(
        sample(machine, 20, 7, sampler=Driven(0.0)).means, sample(machine, 20, 7).means
    )


@pytest.mark.parametrize("name", MACHINES)
def test_driven_chains_end_at_the_machine(name):
    machine = MACHINES[name]()
    testing.check_sampler(Driven(steps=6), machine, chains=2500, steps=25)


def test_chains_that_are_driven_to_the_end_are_off():
    """The twin: what the schedule is for."""
    machine = MACHINES["spin"]()
    with pytest.raises(AssertionError):
        testing.check_distribution(Driven(0.9), machine, chains=3000, steps=25)


def test_beta_keeps_unbounded_pairs_normalisable():
    machine = models.layered(Gaussian(1), Gaussian(1))
    with torch.no_grad():
        machine.joints[0].weight.fill_(0.8)
    sampler, generator = Driven(1.0), Generator().manual_seed(0)
    state = sampler.init(machine, torch.zeros(500, 1), generator)
    for _ in range(20):
        state, info = sampler.step(machine, state, generator)
        assert float(info.diagnostics["beta"].max()) <= 0.99 / 0.8 + 1e-6
    assert bool(torch.isfinite(state.layers[0]).all())


def test_held_units_of_driven_chains():
    machine = MACHINES["bernoulli"]()
    mask = torch.tensor([True, False, False])
    found = sample(machine, 30, 5, clamp=(mask, torch.ones(3)), sampler=Driven())
    assert bool((found.samples[:, 0] == 1).all())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Driven(-0.1), "from 0 to 1"),
        (lambda: Driven(math.nan), "finite number"),
        (lambda: Driven(momentum=1), "below 1"),
        (lambda: Driven(steps=-1), "at least 0"),
        (lambda: TemperedTransitions(models.rbm(2, 2), [0, 0.5, 0.4, 1]), "rise from"),
        (lambda: TemperedTransitions(models.rbm(2, 2), 1), "at least 2"),
        (lambda: TemperedTransitions("digits"), "reference of tempered transitions"),
        (lambda: TemperedTransitions(models.rbm(2, 2), sweeps=0), "at least 1"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(make, words):
    with pytest.raises(GibbsianError, match=words) as caught:
        make()
    assert str(caught.value).endswith(".")
