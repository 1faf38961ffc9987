"""Samplers against the listed distribution; deliberately wrong ones must fail. And `sample`."""

import math

import pytest
import torch
from test_machine import HIDDEN, PAIRS, VISIBLE, pair, small_machine
from torch import Generator

from gibbsian import memory, models, testing
from gibbsian.connections import Scaled
from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators import run_chains
from gibbsian.machine import BoltzmannMachine, Clamp
from gibbsian.path import BaseRatePath, reference
from gibbsian.samplers import (
    ChainState,
    Gibbs,
    Info,
    RatesFPCD,
    TemperedTransitions,
    Tempering,
    TrajectoryTempering,
    run,
    sample,
    start,
)
from gibbsian.samplers.gibbs import draw
from gibbsian.trajectory import Trajectory
from gibbsian.units import Bernoulli, Gaussian, Mixed, ReLU, Softmax, Spin
from gibbsian.units import base as unit

_STEPS = 25


@pytest.mark.parametrize(("visible", "hidden"), PAIRS)
def test_pair_of_units(visible, hidden):
    """The joint distribution of both layers, from noise."""
    testing.check_sampler(Gibbs(), pair(visible, hidden), chains=6000, steps=_STEPS)


DEEP = {
    "bernoulli-spin-bernoulli": lambda: (Bernoulli(3), Spin(2), Bernoulli(2)),
    "gaussian-bernoulli-softmax": lambda: (Gaussian(1), Bernoulli(2), Softmax(1, 3)),
    "all-real": lambda: (Gaussian(1), ReLU(1), Gaussian(1)),
    "four-layers": lambda: (Softmax(1, 3), Bernoulli(2), Spin(1), Bernoulli(2)),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_machine(name):
    machine = small_machine(*DEEP[name](), seed=2)
    testing.check_sampler(Gibbs(), machine, chains=8000, steps=40)


def test_single_precision_and_odd_numbers_of_chains():
    machine = pair("mixed", "bernoulli").float()
    testing.check_sampler(Gibbs(), machine, chains=7001, steps=_STEPS)


def test_a_machine_on_a_path():
    """β = 0.6: the same sampler on a machine whose couplings are scaled."""
    target = pair("bernoulli", "spin")
    x = target.layers[0].domain.noise(50, Generator().manual_seed(0))
    path = BaseRatePath(reference(target, x), target)
    testing.check_sampler(Gibbs(), path.at(0.6), chains=8000, steps=_STEPS)
    with pytest.raises(AssertionError):
        testing.check_distribution(Gibbs(), path.at(0.6), truth=target, steps=_STEPS)


# Clamps, of units and of whole layers.


def _held(machine: BoltzmannMachine, layer: int, blocks: int | None) -> dict[int, Clamp]:
    """Hold the first blocks of a layer (all of them for None) at a valid value."""
    widths = machine.layers[layer].domain.widths
    mask = torch.zeros(machine.sizes[layer], dtype=torch.bool)
    mask[: sum(widths[:blocks])] = True
    value = machine.layers[layer].domain.noise(1, Generator().manual_seed(5))[0].double()
    return {layer: Clamp(mask, value)}


@pytest.mark.parametrize(
    ("name", "layer", "blocks"),
    [
        ("bernoulli", 0, 2),
        ("spin", 0, 1),
        ("gaussian", 0, 1),
        ("relu", 0, 1),
        ("softmax", 0, 1),
        ("mixed", 0, 2),
        ("bernoulli", 0, None),
        ("softmax", 1, 1),
        ("gaussian", 1, None),
    ],
)
def test_held_units(name, layer, blocks):
    machine = pair(name, "bernoulli")
    clamps = _held(machine, layer, blocks)
    testing.check_sampler(Gibbs(), machine, clamps=clamps, chains=8000, steps=_STEPS)
    with pytest.raises(AssertionError):
        testing.check_contract(ForgetsClamps(), machine, clamps=clamps)


def test_held_layers_of_a_deep_machine():
    machine = small_machine(*DEEP["bernoulli-spin-bernoulli"](), seed=2)
    for layer, blocks in ((0, None), (1, 1), (2, None)):
        clamps = _held(machine, layer, blocks)
        testing.check_sampler(Gibbs(), machine, clamps=clamps, chains=6000, steps=_STEPS)


# Wrong-answer twins.


class Step(Gibbs):
    """A Gibbs sampler whose drawing of one parity is replaced."""

    parity = 0

    def step(self, machine, state, generator, clamps=None):
        layers = list(state.layers)
        with torch.no_grad():
            for parity in (0, 1):
                fields = machine.fields(parity, layers)
                for i, f in fields.items():
                    wrong = self.wrong if parity == self.parity else type(machine.layers[i]).sample
                    layers[i] = wrong(machine.layers[i], f, generator)
        return ChainState(tuple(layers)), Info(fields)

    def wrong(self, units, f, generator):
        raise NotImplementedError


class NotNoised(Step):
    """Visibles that are conditional means."""

    def wrong(self, units, f, generator):
        return unit.mean(units, f)


class VarianceAsStd(Step):
    """Gaussian visibles with the variance as standard deviation."""

    def wrong(self, units, f, generator):
        m, variance = unit.mean(units, f), 1 / units.log_precision.exp()
        return m + variance * torch.randn(f.shape, generator=generator, dtype=f.dtype)


class Tempered(Step):
    """Visibles at β = 0.8."""

    def wrong(self, units, f, generator):
        return units.sample(0.8 * f, generator)


class HiddenMeans(Step):
    """Hidden means passed down in place of samples."""

    parity = 1

    def wrong(self, units, f, generator):
        return unit.mean(units, f)


class Stuck(Gibbs):
    """A sampler that does not move."""

    def step(self, machine, state, generator, clamps=None):
        with torch.no_grad():
            return state, Info(machine.fields(1, state.layers))


class ForgetsClamps(Gibbs):
    """A step that moves held units."""

    def step(self, machine, state, generator, clamps=None):
        return super().step(machine, state, generator)


class InPlace(Gibbs):
    """A step that writes into the state that it was given."""

    def step(self, machine, state, generator, clamps=None):
        after, info = super().step(machine, state, generator, clamps)
        for old, new in zip(state.layers, after.layers, strict=True):
            old.copy_(new)
        return after, info


class StaleFields(Gibbs):
    """Info with the fields of the step before."""

    def step(self, machine, state, generator, clamps=None):
        with torch.no_grad():
            fields = machine.fields(1, state.layers)
        after, _ = super().step(machine, state, generator, clamps)
        return after, Info(fields)


class GlobalDice(Gibbs):
    """Randomness from the global generator."""

    def step(self, machine, state, generator, clamps=None):
        return super().step(machine, state, None, clamps)


class OneSeedForAll(Gibbs):
    """Every step draws the same random numbers: chains that never forget."""

    def step(self, machine, state, generator, clamps=None):
        return super().step(machine, state, Generator().manual_seed(0), clamps)


@pytest.mark.parametrize(
    ("wrong", "visible", "scale"),
    [
        (NotNoised, "gaussian", 0.6),
        (NotNoised, "bernoulli", 0.6),
        (VarianceAsStd, "gaussian", 0.6),
        (Tempered, "bernoulli", 1.2),
        (Tempered, "gaussian", 0.6),
        (Tempered, "softmax", 1.2),
        (HiddenMeans, "bernoulli", 0.6),
        (HiddenMeans, "gaussian", 0.6),
        (Stuck, "bernoulli", 0.6),
        (Stuck, "relu", 0.6),
    ],
)
def test_a_wrong_distribution_fails(wrong, visible, scale):
    machine = small_machine(VISIBLE[visible](), Bernoulli(2), scale=scale)
    testing.check_distribution(Gibbs(), machine, steps=_STEPS)
    with pytest.raises(AssertionError):
        testing.check_distribution(wrong(), machine, steps=_STEPS, chains=20_000)


@pytest.mark.parametrize("wrong", [InPlace, StaleFields, GlobalDice, OneSeedForAll])
def test_a_broken_rule_fails(wrong):
    testing.check_contract(Gibbs(), pair("bernoulli", "bernoulli"))
    with pytest.raises(AssertionError):
        testing.check_sampler(wrong(), pair("bernoulli", "bernoulli"), chains=4000, steps=_STEPS)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_another_target_fails(visible):
    machine, other = pair(visible, "bernoulli", seed=0), pair(visible, "bernoulli", seed=0)
    with torch.no_grad():
        other.joints[0].weight.mul_(1.3)
    with pytest.raises(AssertionError):
        testing.check_distribution(Gibbs(), machine, truth=other, chains=20_000, steps=_STEPS)


# Gaussian visibles: the defects of others, by name.


def test_gaussian_visibles_are_noised_with_the_right_variance(generator):
    """v | h ~ N((θ + W h)/γ, 1/γ): γ = 25 gives a standard deviation of 0.2, not 0.04 nor 0."""
    machine = models.layered(Gaussian(1, precision=25.0), Bernoulli(1))
    with torch.no_grad():
        machine.joints[0].weight.fill_(50.0)
    h = torch.ones(20_000, 1)
    layers = [torch.zeros(20_000, 1), h]
    draw(machine, layers, 0, generator)
    error = 0.2 / 20_000**0.5
    assert float(layers[0].mean()) == pytest.approx(2.0, abs=5 * error)
    assert float(layers[0].std()) == pytest.approx(0.2, abs=5 * error)


def test_chains_do_not_depend_on_how_many_run_beside_them():
    """No division by the batch size anywhere: variance 1 at 1, 100 and 512 chains with W = 0."""
    machine = models.gaussian_rbm(1, 1)
    for chains in (2, 100, 512):
        gibbs, generator = Gibbs(), Generator().manual_seed(chains)
        state = gibbs.init(machine, torch.zeros(chains, 1), generator)
        seen = []
        run(gibbs, machine, state, -(-4000 // chains), generator,
            visit=lambda i, s, info, seen=seen: seen.append(s.layers[0]))  # fmt: skip
        v = torch.cat(seen)
        assert float(v.var()) == pytest.approx(1.0, abs=5 * (2 / len(v)) ** 0.5)


# Where chains start.


@pytest.mark.parametrize("name", VISIBLE)
def test_noise_is_valid_and_knows_nothing_of_parameters(name):
    machine = pair(name, "bernoulli", seed=1)
    a = start(machine, 20, "noise", Generator().manual_seed(3))
    b = start(pair(name, "bernoulli", seed=2), 20, "noise", Generator().manual_seed(3))
    machine.check(a)
    assert torch.equal(a, b)


def test_noise_of_bits_is_fair(generator):
    v = start(models.rbm(4, 2), 10_000, "noise", generator)
    assert float((v.mean(dim=0) - 0.5).abs().max()) < 5 * 0.5 / 100


def test_reference_start_has_the_datas_means(generator):
    x = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    v = start(models.rbm(3, 2), 20_000, "reference", generator, x.repeat(250, 1))
    truth = (1000 * torch.tensor([1.0, 0.25, 0.25]) + 0.5) / 1001
    error = (truth * (1 - truth) / 20_000).sqrt()
    assert float(((v.mean(dim=0) - truth) / error).abs().max()) < 4.5


def test_data_start_takes_rows_without_replacement_while_they_last(generator):
    x = torch.arange(7.0)[:, None].repeat(1, 2)
    machine = models.gaussian_rbm(2, 2)
    v = start(machine, 5, "data", generator, x)
    assert len(v[:, 0].unique()) == 5
    v = start(machine, 16, "data", generator, x)
    counts = torch.bincount(v[:, 0].long(), minlength=7)
    assert int(counts.min()) == 2 and int(counts.max()) == 3


def test_data_start_of_rates_draws_bits(generator):
    v = start(models.rbm(2, 2), 4000, "data", generator, torch.tensor([[0.25, 1.0]]))
    assert set(v.unique().tolist()) == {0.0, 1.0}
    assert float(v[:, 0].mean()) == pytest.approx(0.25, abs=5 * (0.1875 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": "elsewhere"}, "Chains start from noise, reference, data"),
        ({"where": "data"}, "give them as data="),
        ({"where": "reference"}, "give them as data="),
        ({"where": "noise", "chains": 0}, "at least 1, and 0 is not"),
        ({"where": "data", "data": torch.zeros(0, 3)}, "no rows"),
        ({"where": "data", "data": torch.zeros(2, 4)}, "need rows of 3"),
        ({"where": "reference", "data": torch.full((2, 3), 7.0)}, "transform"),
        ({"where": torch.full((2, 3), math.nan)}, "the start hold 6 values that are NaN"),
        ({"where": torch.zeros(2, 4)}, "the start have shape 2×4"),
    ],
)
def test_impossible_starts_are_refused_in_one_sentence(arguments, words):
    settings = {"chains": 3, "generator": None} | arguments
    with pytest.raises(GibbsianError, match=words) as caught:
        start(models.rbm(3, 2), **settings)
    assert str(caught.value).endswith(".")


# sample().


def test_sample_returns_samples_means_and_trace():
    machine = pair("bernoulli", "bernoulli").float()
    out = sample(machine, n=6, steps=7, record=(0, 3, 7), generator=4)
    assert out.samples.shape == out.means.shape == (6, 3)
    assert set(out.samples.unique().tolist()) <= {0.0, 1.0}
    assert float(out.means.min()) > 0 and float(out.means.max()) < 1
    assert out.at == (0, 3, 7) and out.trace is not None and out.trace.shape == (3, 6, 3)
    assert torch.equal(out.trace[2], out.samples)
    assert torch.equal(out.state.layers[0], out.samples)
    assert not out.samples.requires_grad and not out.means.requires_grad
    assert sample(machine, n=2, steps=1).trace is None


def test_trace_starts_at_the_start():
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    out = sample(models.rbm(3, 2), steps=2, start=x, record=[0])
    assert out.trace is not None and torch.equal(out.trace[0], x)
    zero = sample(models.rbm(3, 2), steps=0, start=x)
    assert torch.equal(zero.samples, x) and len(zero.samples) == 2


def test_trace_does_not_change_the_chains():
    machine = pair("gaussian", "bernoulli")
    a, b = (sample(machine, 5, 9, record=r, generator=1) for r in ((), range(10)))
    assert torch.equal(a.samples, b.samples) and torch.equal(a.means, b.means)


def test_samples_are_not_means_and_means_are_those_of_the_last_step():
    """The means are those that the samples scatter around: variance 1/γ, and no correlation left."""
    machine = small_machine(Gaussian(2, precision=4.0), Bernoulli(2))
    out = sample(machine, n=20_000, steps=20, generator=3)
    gamma = machine.layers[0].log_precision.detach().exp()
    z = (out.samples - out.means) * gamma.sqrt()
    assert float(z.mean(dim=0).abs().max()) < 5 / 20_000**0.5
    assert float((z.var(dim=0) - 1).abs().max()) < 5 * (2 / 20_000) ** 0.5
    centred = out.means - out.means.mean(dim=0)
    spread = (z * centred).mean(dim=0) / (out.means.std(dim=0) / 20_000**0.5)
    assert float(spread.abs().max()) < 5


def test_final_samples_have_the_machines_distribution():
    machine = pair("softmax", "spin")
    table = testing.enumerate_states(machine)
    out = sample(machine, n=8000, steps=_STEPS, generator=2)
    agreement = testing.Agreement()
    testing.samplers.compare_states(agreement, machine, table, out.state.layers)
    agreement.require("sample")
    with pytest.raises(AssertionError):
        early = testing.Agreement()
        begin = sample(machine, n=8000, steps=0, generator=2)
        testing.samplers.compare_states(early, machine, table, begin.state.layers)
        early.require("no step at all")


def test_a_seed_fixes_the_samples_and_the_default_is_seed_0():
    machine = pair("mixed", "bernoulli")
    before = torch.get_rng_state()
    a, b, c, d = (
        sample(machine, 8, 3, generator=g) for g in (None, 0, 1, Generator().manual_seed(1))
    )
    assert torch.equal(a.samples, b.samples) and torch.equal(c.samples, d.samples)
    assert not torch.equal(a.samples, c.samples)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_sample_takes_as_many_steps_as_asked_for(steps):
    machine, gibbs = pair("bernoulli", "spin"), Gibbs()
    out = sample(machine, 50, steps, generator=6)
    generator = Generator().manual_seed(6)
    state = gibbs.init(machine, start(machine, 50, "noise", generator), generator)
    state, _ = run(gibbs, machine, state, steps, generator)
    for a, b in zip(out.state.layers, state.layers, strict=True):
        assert torch.equal(a, b)


def test_going_on_from_a_state():
    """Five steps and then three are eight."""
    machine, gibbs = pair("relu", "spin"), Gibbs()
    whole = sample(machine, 4, 8, generator=6)
    generator = Generator().manual_seed(6)
    part = sample(machine, 4, 5, generator=generator)
    state, _ = run(gibbs, machine, part.state, 3, generator)
    assert torch.equal(state.layers[0], whole.samples)


def test_inpainting_holds_a_shared_mask_at_values_per_chain():
    machine = pair("bernoulli", "spin").float()
    mask = torch.tensor([True, True, False])
    value = torch.tensor([[0.0, 1.0, math.nan], [1.0, 1.0, 5.0]])
    out = sample(machine, n=2, steps=5, clamp=(mask, value), record=[0, 2, 5])
    assert out.trace is not None
    assert torch.equal(out.trace[:, :, :2], value[None, :, :2].expand(3, -1, -1))
    assert torch.equal(out.means[:, :2], value[:, :2])
    assert bool(((out.means[:, 2] > 0) & (out.means[:, 2] < 1)).all())


def test_class_conditional_sampling_of_a_deep_layer():
    machine = models.layered(Bernoulli(3), Bernoulli(2), Softmax(1, 3))
    clamp = {2: Clamp(torch.ones(3, dtype=torch.bool), torch.tensor([0.0, 1.0, 0.0]))}
    out = sample(machine, n=4, steps=3, clamp=clamp)
    assert torch.equal(out.state.layers[2], torch.tensor([[0.0, 1.0, 0.0]]).expand(4, -1))


def _mask(*bits: int) -> torch.Tensor:
    return torch.tensor(bits, dtype=torch.bool)


@pytest.mark.parametrize(
    ("clamp", "words"),
    [
        ((_mask(1, 1, 0, 0, 0), torch.zeros(5)), "cuts through a one-of-3 block"),
        ((_mask(1, 0, 0, 0), torch.zeros(4)), "boolean mask and values of shape"),
        ((torch.ones(5), torch.zeros(5)), "boolean mask"),
        ((_mask(1, 0, 0, 0, 0).repeat(3, 1), torch.zeros(5)), r"\(8, 5\)"),
        ((_mask(1, 1, 1, 0, 0), torch.tensor([1.0, 1.0, 0, 0, 0])), "exactly one 1"),
        ((_mask(0, 0, 0, 1, 0), torch.full((5,), math.nan)), "NaN"),
        ((_mask(0, 0, 0, 1, 0), torch.full((5,), 4.0)), "0 to 1"),
        ({3: Clamp(_mask(1, 0), torch.zeros(2))}, "no layer 3"),
    ],
)
def test_impossible_holds_are_refused_in_one_sentence(clamp, words):
    machine = models.rbm(Mixed([Softmax(1, 3), Bernoulli(2)]), 2)
    with pytest.raises(GibbsianError, match=words) as caught:
        sample(machine, n=8, steps=1, clamp=clamp)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": -1}, "at least 0, and -1 is not"),
        ({"steps": 3, "record": [4]}, "from 0 to 3"),
        ({"steps": 3, "record": [-1]}, "at least 0, and -1 is not"),
        ({"n": 0}, "at least 1"),
        ({"start": "somewhere"}, "Chains start from"),
        ({"start": "data"}, "give them as data="),
        ({"start": torch.full((2, 3), 2.0)}, "transform"),
    ],
)
def test_impossible_requests_are_refused_in_one_sentence(settings, words):
    with pytest.raises(GibbsianError, match=words) as caught:
        sample(models.rbm(3, 2), **({"n": 2, "steps": 1} | settings))
    assert str(caught.value).endswith(".")


def test_start_values_outside_the_domain_are_a_data_error():
    with pytest.raises(DataError, match="one-hot"):
        sample(models.softmax_rbm(1, 3, 2), start=torch.ones(1, 3))


@pytest.mark.parametrize("weight", [1.2, math.nan])
@pytest.mark.parametrize("hidden", [Gaussian, ReLU])
def test_a_machine_without_a_finite_partition_function_is_refused(hidden, weight):
    machine = models.layered(Gaussian(1), hidden(1))
    with torch.no_grad():
        machine.joints[0].weight.fill_(weight)
    with pytest.raises(GibbsianError, match="no finite partition function"):
        sample(machine, n=1, steps=1)


def test_run_visits_every_step(generator):
    machine, gibbs, seen = models.rbm(3, 2), Gibbs(), []
    state = gibbs.init(machine, torch.zeros(2, 3), generator)
    end, info = run(gibbs, machine, state, 4, generator, visit=lambda i, s, _: seen.append((i, s)))
    assert [i for i, _ in seen] == [1, 2, 3, 4] and seen[-1][1] is end
    assert info is not None and set(info.fields) == {1}
    same, nothing = run(gibbs, machine, state, 0, generator)
    assert same is state and nothing is None


def test_samplers_take_any_connection():
    right = pair("bernoulli", "bernoulli")
    scaled = BoltzmannMachine(right.layers, [Scaled(right.joints[0], 0.5)])
    testing.check_distribution(Gibbs(), scaled, steps=_STEPS)
    with pytest.raises(AssertionError):
        testing.check_distribution(Gibbs(), scaled, truth=right, steps=_STEPS)


def test_every_hidden_family_is_paired():
    assert len(PAIRS) == len(VISIBLE) * len(HIDDEN) == 49


_PLACED = [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("make", "numbers"), [
    (lambda base: Gibbs(), 4 * 5),
    (lambda base: RatesFPCD(torch.ones(2, 3)), 4 * 5 + 6 * 6),
    (lambda base: RatesFPCD(torch.ones(2, 3), shared=True), 4 * 5),
    (lambda base: Tempering(base, _PLACED), 3 * 4 * 5),
    (lambda base: Tempering(base), 2 * 4 * 5),  # as many as it finds that it needs
    (lambda base: TrajectoryTempering(Trajectory((base,), (0,))), 2 * 4 * 5),
    (lambda base: TemperedTransitions(base, _PLACED), 2 * 4 * 5),
])  # fmt: skip
def test_memory_of_chains_is_counted_before_they_run(make, numbers, monkeypatch):
    """Of 100 chains of 3 and 2 units, in float32: a byte less than they need is refused."""
    machine = models.rbm(3, 2)
    with torch.no_grad():
        machine.joints[0].weight.fill_(0.1)
    sampler, bytes_each = make(reference(machine, torch.ones(2, 3))), 4 * numbers
    monkeypatch.setattr(memory, "free_memory", lambda like: 100 * bytes_each - 1)
    for starts in ("noise", torch.zeros(100, 3)):
        with pytest.raises(GibbsianError, match=r"^100 chains .* need about .*; ask for fewer"):
            sample(machine, 100, 1, start=starts, sampler=sampler)
    with pytest.raises(GibbsianError, match=r"^100 chains .* need about .*; ask for fewer"):
        run_chains(machine, 100, 1, ["noise"], sampler=sampler)
    monkeypatch.setattr(memory, "free_memory", lambda like: 100 * bytes_each)
    assert sample(machine, 100, 1, sampler=sampler).samples.shape == (100, 3)


def test_memory_of_a_trace_is_counted(monkeypatch):
    machine = models.rbm(3, 2)
    monkeypatch.setattr(memory, "free_memory", lambda like: 10 * 4 * 4 * 5)
    assert sample(machine, 10, 1).trace is None
    with pytest.raises(GibbsianError, match=r"^10 chains of Gibbs need about"):
        sample(machine, 10, 1, record=[1])
