"""Tempering against the listed distribution at every level; wrong swaps must fail. And `annealed`."""

import copy

import pytest
import torch
from test_machine import pair, small_machine
from torch import Generator

import gibbsian as gb
from gibbsian import models, testing
from gibbsian.callbacks import Callback
from gibbsian.errors import DataError, GibbsianError, GibbsianWarning
from gibbsian.evaluators.likelihood import partition
from gibbsian.machine import Clamp
from gibbsian.path import BaseRatePath, reference
from gibbsian.samplers import (
    Gibbs,
    TemperedTransitions,
    Tempering,
    annealed,
    ladder,
    run,
    sample,
)
from gibbsian.samplers.replica import levels_of
from gibbsian.testing.agreement import Agreement
from gibbsian.testing.samplers import compare_states
from gibbsian.units import Bernoulli, Gaussian, Softmax, Spin
from gibbsian.units import base as unit

BETAS = [0.0, 0.3, 0.7, 1.0]

MACHINES = {
    "bernoulli": lambda: pair("bernoulli", "bernoulli"),
    "spin": lambda: pair("spin", "spin"),
    "gaussian": lambda: pair("gaussian", "bernoulli"),
    "softmax": lambda: pair("softmax", "bernoulli"),
    "relu": lambda: pair("relu", "bernoulli"),
    "mixed": lambda: pair("mixed", "gaussian"),
    "three layers": lambda: small_machine(Bernoulli(2), Spin(2), Bernoulli(2), seed=2),
    "four layers": lambda: small_machine(Softmax(1, 3), Bernoulli(2), Spin(1), Gaussian(1), seed=2),
}


def _reference(machine, seed: int = 0):
    """A reference away from the machine: its visible biases, and for one layer its others, differ."""
    x = machine.layers[0].domain.noise(60, Generator().manual_seed(seed)).double()
    base = reference(machine, 0.5 * x if isinstance(machine.layers[0], Gaussian) else x)
    with torch.no_grad():
        base.layers[1].bias.add_(0.3)
    return base


def _strong():
    """A spin machine with two deep valleys that Gibbs does not leave, at m and −m, of unequal weight."""
    machine = models.rbm(Spin(8), Spin(6)).double()
    with torch.no_grad():
        machine.joints[0].weight.fill_(0.9)
        machine.layers[0].bias.fill_(0.02)
    return machine


# The distribution, at every level.


@pytest.mark.parametrize("name", MACHINES)
def test_the_top_level_is_the_machine(name):
    machine = MACHINES[name]()
    testing.check_sampler(Tempering(_reference(machine), BETAS), machine, chains=3000, steps=12)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "softmax", "three layers"])
def test_every_level_is_its_machine_on_the_path(name):
    machine = MACHINES[name]()
    path = BaseRatePath(_reference(machine), machine)
    assert all(p > 1e-6 for p in _level_agreement(Tempering(path.start, BETAS), machine, path))


def _level_agreement(sampler, machine, path, chains: int = 4000) -> list[float]:
    generator = Generator().manual_seed(1)
    state = sampler.init(machine, path.draw(chains, generator)[0], generator)
    state, _ = run(sampler, machine, state, 15, generator)
    found = []
    for k, beta in enumerate(BETAS):
        at = path.at(beta)
        agreement = Agreement()
        rows = tuple(s[k * chains : (k + 1) * chains] for s in levels_of(state))
        compare_states(agreement, at, testing.enumerate_states(at), rows)
        found.append(agreement.p_value)
    return found


class Wrong(Tempering):
    """Tempering whose swaps see another Δ."""

    def _swap(self, levels, rows, fields, generator):
        levels.path = copy.copy(levels.path)
        levels.path.gain = lambda *a, right=levels.path.gain: self.factor * right(*a)
        return ladder.exchange(levels, rows, fields, generator)


class Turned(Wrong):
    """The sign of Δ is wrong."""

    factor = -1


class Always(Wrong):
    """Every swap is accepted."""

    factor = 0


class WithoutFields(Tempering):
    """The fields are not swapped along with the states, so odd layers come from other rows."""

    def _swap(self, levels, rows, fields, generator):
        return ladder.exchange(levels, rows, {i: f.clone() for i, f in fields.items()}, generator)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("bernoulli", Turned),
        ("bernoulli", Always),
        ("bernoulli", WithoutFields),
        ("gaussian", Turned),
        ("three layers", Always),
        ("three layers", WithoutFields),
    ],
)
def test_wrong_swaps_are_found(name, wrong):
    machine = MACHINES[name]()
    path = BaseRatePath(_reference(machine), machine)
    with pytest.raises(AssertionError):
        testing.check_distribution(wrong(path.start, BETAS), machine, chains=3000, steps=12)


def test_swaps_are_accepted_as_often_as_the_levels_overlap():
    """At equilibrium E min(1, e^Δ) over independent states of both levels, listed."""
    machine = MACHINES["bernoulli"]()
    path = BaseRatePath(_reference(machine), machine)
    generator = Generator().manual_seed(3)
    sampler = Tempering(path.start, BETAS)
    state = sampler.init(machine, path.draw(5000, generator)[0], generator)
    state, info = run(sampler, machine, state, 15, generator)
    for k in range(3):
        low, high = BETAS[k], BETAS[k + 1]
        table = testing.enumerate_states(machine)
        gain = path.gain(table.states, machine.fields(1, table.states), low, high)
        p, q = (
            (-path.at(b).energy(table.states)).softmax(0).detach() for b in (low, high)
        )  # fmt: skip
        truth = float(p @ (gain[:, None] - gain[None]).exp().clamp(max=1) @ q)
        assert float(info.diagnostics["acceptance"][k]) == pytest.approx(truth, abs=0.035)


def test_more_sweeps_single_precision_and_two_levels():
    machine = MACHINES["spin"]().float()
    base = reference(machine, machine.layers[0].domain.noise(50, Generator().manual_seed(0)))
    testing.check_sampler(Tempering(base, [0, 1], sweeps=3), machine, chains=4001, steps=8)


def test_data_rows_stand_for_the_reference():
    machine = MACHINES["gaussian"]()
    x = torch.randn(200, machine.sizes[0], generator=Generator().manual_seed(0)).double()
    testing.check_sampler(Tempering(x.numpy(), BETAS), machine, chains=3000, steps=12)


# Held units.


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "softmax"])
def test_held_visible_units(name):
    machine = MACHINES[name]()
    width = machine.layers[0].domain.widths[0]
    mask = torch.zeros(machine.sizes[0], dtype=torch.bool)
    mask[:width] = True
    value = machine.layers[0].domain.noise(1, Generator().manual_seed(5))[0].double()
    sampler = Tempering(_reference(machine), BETAS)
    testing.check_sampler(sampler, machine, clamps={0: Clamp(mask, value)}, chains=3000, steps=12)


def test_each_chain_holds_its_own_values():
    machine = MACHINES["bernoulli"]()
    values = machine.layers[0].domain.noise(40, Generator().manual_seed(5)).double()
    mask = torch.zeros(40, machine.sizes[0], dtype=torch.bool)
    mask[::2, 0] = True
    found = sample(
        machine, 40, 5, clamp=(mask, values), sampler=Tempering(_reference(machine), BETAS)
    )
    assert torch.equal(found.samples[::2, 0], values[::2, 0])


def test_held_odd_layers_are_refused():
    machine = MACHINES["bernoulli"]()
    clamp = Clamp(torch.ones(machine.sizes[1], dtype=torch.bool), torch.ones(machine.sizes[1]))
    with pytest.raises(GibbsianError, match=r"even layers only, and layer 1 is odd.*\.$"):
        sample(machine, 5, 5, clamp={1: clamp}, sampler=Tempering(_reference(machine), BETAS))


# Crossing.


def test_tempering_crosses_where_gibbs_does_not():
    machine = _strong()
    x = machine.layers[0].domain.noise(500, Generator().manual_seed(0)).double()
    steps, chains = 100, 300
    flips, up = {}, 0.0
    for sampler in (Gibbs(), Tempering(x)):
        generator = Generator().manual_seed(2)
        state = sampler.init(machine, -torch.ones(chains, 8).double(), generator)
        kept = []
        state, info = run(sampler, machine, state, steps, generator,
                          visit=lambda i, s, _, kept=kept: kept.append(s.layers[0].sum(1)))  # fmt: skip
        signs = torch.stack(kept).sign()
        flips[type(sampler).__name__] = float((signs.diff(dim=0).abs() == 2).sum())
        up = float((signs[30:] > 0).double().mean())
    assert flips["Gibbs"] <= 2 * chains * steps / 10_000
    assert flips["Tempering"] > chains * steps / 50
    # The weight of the two valleys is the exact one.
    table = testing.enumerate_states(machine)
    truth = table.probabilities
    total = float(truth[table.states[0].sum(1) > 0].sum())
    # An independent draw a chain, at the least: a standard error of 0.029.
    assert up == pytest.approx(total, abs=0.1)
    assert float(info.diagnostics["round_trips"].double().mean()) > 1


def test_round_trips_are_those_of_the_replicas():
    """Counted anew from where the replicas stand after each step."""
    machine = _strong()
    sampler = Tempering(_reference(machine), [0.0, 0.25, 0.5, 0.75, 1.0])
    generator = Generator().manual_seed(0)
    state = sampler.init(machine, torch.ones(4, 8).double(), generator)
    seen = [state.extra["replica"]]
    state, info = run(sampler, machine, state, 80, generator,
                      visit=lambda i, s, _: seen.append(s.extra["replica"]))  # fmt: skip
    for c in range(4):
        trips = 0
        for r in range(5):
            ends = [0 if s[0, c] == r else 1 for s in seen if r in (s[0, c], s[-1, c])]
            path = [a for i, a in enumerate(ends) if i == 0 or ends[i - 1] != a]
            path = path[path.index(0) :] if 0 in path else []
            trips += max(0, (len(path) - 1) // 2)
        assert int(info.diagnostics["round_trips"][c]) == trips
    assert int(info.diagnostics["round_trips"].sum()) > 0
    assert all(sorted(s[:, 0].tolist()) == list(range(5)) for s in seen)


# Levels.


def test_levels_are_placed_for_the_acceptance_asked_for():
    machine = testing.perturbed(models.rbm(30, 20), 1.0, seed=1)
    x = machine.layers[0].domain.noise(200, Generator().manual_seed(0)).double()
    sampler = Tempering(x)
    generator = Generator().manual_seed(0)
    state = sampler.init(machine, x[:100], generator)
    told = []
    run(
        sampler,
        machine,
        state,
        60,
        generator,
        visit=lambda i, s, info: told.append(info.diagnostics),
    )
    rates = torch.stack([d["acceptance"] for d in told[10:]]).mean(dim=0)
    assert len(rates) > 3
    assert float(rates.min()) > 0.15 and float(rates.max()) < 0.55
    asked = Tempering(x, 12).init(machine, x[:5], generator).extra["betas"]
    assert len(asked) == 12 and asked[0] == 0 and asked[-1] == 1 and bool((asked.diff() > 0).all())


def test_a_machine_like_its_reference_has_even_levels():
    machine = models.rbm(4, 3)
    x = torch.tensor([[0.0, 1, 0, 1], [1.0, 0, 1, 0]])
    base = reference(machine, x)
    betas = Tempering(base, 5).init(base, x, Generator().manual_seed(0)).extra["betas"]
    torch.testing.assert_close(betas, torch.linspace(0, 1, 5).double())
    assert len(Tempering(base).init(base, x, Generator().manual_seed(0)).extra["betas"]) == 2


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([0, 0.5, 0.4, 1], "rise from exactly 0 to exactly 1"),
        ([0.1, 1], "rise from exactly 0 to exactly 1"),
        ([0, 0.9], "rise from exactly 0 to exactly 1"),
        (1, "number of levels of tempering must be a whole number of at least 2"),
    ],
)
def test_impossible_levels_are_refused_in_one_sentence(levels, words):
    with pytest.raises(GibbsianError, match=words) as caught:
        Tempering(models.rbm(2, 2), levels)
    assert str(caught.value).endswith(".")


def test_a_reference_that_does_not_fit_is_refused(generator):
    machine, x = models.rbm(3, 2), torch.ones(4, 3)
    with pytest.raises(GibbsianError, match="has layers of"):
        Tempering(models.rbm(3, 3), BETAS).init(machine, x, generator)
    coupled = testing.perturbed(machine).float()
    with pytest.raises(GibbsianError, match="has couplings"):
        Tempering(coupled, BETAS).init(machine, x, generator)
    with pytest.raises(DataError, match="rows of 3 values"):
        Tempering(torch.ones(4, 5), BETAS).init(machine, x, generator)
    with pytest.raises(GibbsianError, match="reference of tempering is a machine"):
        Tempering("digits", BETAS)


# In sampling and in training.


def test_sample_takes_it_and_a_seed_fixes_it():
    machine = MACHINES["gaussian"]()
    found = [
        sample(machine, 20, 10, sampler=Tempering(_reference(machine)), generator=s)
        for s in (1, 1, 2)
    ]
    assert torch.equal(found[0].samples, found[1].samples)
    assert not torch.equal(found[0].samples, found[2].samples)


class StopAt(Callback):
    """What stands for a killed process."""

    def on_update(self, trainer):
        if trainer.step == 12:
            raise KeyError


def test_means_belong_to_the_state_at_the_top():
    machine = MACHINES["gaussian"]()
    found = sample(machine, 20, 10, sampler=Tempering(_reference(machine), BETAS))
    with torch.no_grad():
        truth = unit.mean(machine.layers[0], machine.field(0, found.state.layers))
    assert torch.equal(found.means, truth)


@pytest.mark.parametrize("kind", [Tempering, TemperedTransitions])
def test_products_in_bfloat16(kind):
    machine = models.rbm(6, 4)
    found = sample(machine, 20, 10, sampler=kind(_rows(), 3), precision="bf16")
    assert found.samples.dtype == torch.float32 and found.samples.shape == (20, 6)


@pytest.mark.parametrize("kind", [Tempering, TemperedTransitions])
def test_couplings_too_large_for_a_ladder_are_told(kind):
    machine = models.rbm(6, 4)
    with torch.no_grad():
        machine.joints[0].weight.normal_(0, 1e6, generator=Generator().manual_seed(0))
    with pytest.raises(GibbsianError, match=r"levels, of which .* are allowed: its couplings"):
        sample(machine, 2, 1, sampler=kind(_rows()))
    sample(machine, 2, 1, sampler=kind(_rows(), 5))
    with pytest.warns(GibbsianWarning, match="no likelihood by a ladder: .* couplings"):
        found = partition(machine, _rows(), chains=5, temperatures=10, equilibrate=5, limit_bits=0)
    assert found.ladder is None and found.ais is not None


def _rows() -> torch.Tensor:
    return (torch.rand(60, 6, generator=Generator().manual_seed(4)) < 0.4).float()


@pytest.mark.parametrize(("kind", "levels"), [("machine", BETAS), ("rows", 4)])
def test_a_run_resumes_bit_for_bit(tmp_path, kind, levels):
    x = _rows()

    def method():
        base = reference(gb.rbm(6, 4), x) if kind == "machine" else x
        return gb.PCD(chains=7, sampler=Tempering(base, levels))

    def train(folder, **options):
        return gb.train(
            gb.rbm(6, 4), x, method(), out=tmp_path / folder, updates=16, batch_size=10, seed=0,
            progress=False, checkpoint_every=5, **options,
        )  # fmt: skip

    whole = train("whole")
    with pytest.raises(KeyError):
        train("cut", callbacks=[StopAt()])
    again = train("cut", resume=True)
    ours, theirs = whole.machine.state_dict(), again.machine.state_dict()
    assert again.step == 16 and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_the_negative_phase_is_that_of_the_machine_handed_in():
    """Couplings change between steps: after them the statistics are those of the new machine."""
    machine, x = MACHINES["bernoulli"](), torch.ones(3, 3).double()
    method = gb.PCD(
        steps=15, chains=4000, start="noise", sampler=Tempering(_reference(machine), BETAS)
    )
    generator = Generator().manual_seed(0)
    chains = method.init(machine, x, generator)
    with torch.no_grad():
        machine.joints[0].weight.mul_(-1)
    phases = method.step(machine, x, chains, generator)
    table = testing.enumerate_states(machine)
    truth = machine.mean_statistics(table.states, None, table.probabilities)
    for k in ("connections.0.weight", "units.0.bias", "units.1.bias"):
        torch.testing.assert_close(phases.negative[k], truth[k].detach(), atol=0.035, rtol=0)


# Annealed.


@pytest.mark.parametrize("name", ["bernoulli", "spin", "softmax", "three layers"])
def test_slow_annealing_reaches_the_machine(name):
    machine = MACHINES[name]()
    found = annealed(machine, _reference(machine), 3000, 60, generator=0)
    agreement = Agreement()
    compare_states(agreement, machine, testing.enumerate_states(machine), found.state.layers)
    agreement.require("annealed samples")
    assert found.means.shape == found.samples.shape and torch.equal(
        found.samples, found.state.layers[0]
    )


def test_annealing_in_one_step_is_not_enough():
    """One sweep from the reference, where the valleys' weights are not yet known: the check must see it."""
    machine = _strong()
    quick = annealed(machine, _reference(machine, 3), 3000, 1, generator=0)
    agreement = Agreement()
    compare_states(agreement, machine, testing.enumerate_states(machine), quick.state.layers)
    with pytest.raises(AssertionError):
        agreement.require("hasty samples")


@pytest.mark.parametrize(
    ("temperatures", "words"), [(0, "at least 1"), ([0, 2], "rise from"), (True, "whole")]
)
def test_impossible_annealing_is_refused(temperatures, words):
    machine = MACHINES["bernoulli"]()
    with pytest.raises(GibbsianError, match=words):
        annealed(machine, _reference(machine), 5, temperatures)


def test_a_step_makes_one_product_up_and_one_down():
    machine = MACHINES["bernoulli"]()
    sampler = Tempering(_reference(machine), BETAS)
    generator = Generator().manual_seed(0)
    state = sampler.init(machine, torch.ones(5, 3).double(), generator)
    calls = []
    joint = machine.joints[0]
    up, down = joint.up, joint.down
    joint.up = lambda a, w=None: (calls.append(("up", len(a))), up(a, w))[1]
    joint.down = lambda a, w=None: (calls.append(("down", len(a))), down(a, w))[1]
    sampler.step(machine, state, generator)
    assert calls == [("down", 20), ("up", 20)]
