"""Estimators: their gradients against the exact one, their chains, and what they refuse."""

import pytest
import torch
from test_machine import pair, small_machine
from torch import Generator

from gibbsian import estimators, models, testing
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.estimators import CD, PCD, posterior
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import ChainState, Gibbs, Info
from gibbsian.units import Bernoulli, Gaussian, Mixed, ReLU, Softmax, Spin
from gibbsian.units import base as unit

MACHINES = {
    "bernoulli": lambda: pair("bernoulli", "bernoulli"),
    "spin-binomial": lambda: pair("spin", "binomial"),
    "gaussian": lambda: pair("gaussian", "bernoulli"),
    "gaussian-relu": lambda: pair("gaussian", "relu"),
    "softmax-spin": lambda: pair("softmax", "spin"),
    "mixed-gaussian": lambda: pair("mixed", "gaussian"),
    "deep": lambda: small_machine(Bernoulli(3), Spin(2), Bernoulli(2), seed=2),
}
_REPEATS = 30


def _rows(machine: BoltzmannMachine, n: int = 11) -> torch.Tensor:
    like = next(machine.parameters())
    return machine.layers[0].domain.noise(n, Generator().manual_seed(7)).to(like)


def _exact(machine: BoltzmannMachine, x: torch.Tensor, weights=None) -> dict[str, torch.Tensor]:
    """The gradient of −log p by enumeration and autograd."""
    table = testing.enumerate_states(machine)
    named = {k: p for k, p in machine.named_parameters() if p.requires_grad}
    weights = torch.ones(len(x)).double() if weights is None else weights
    loss = (table.log_weights - machine.energy(table.states)).logsumexp(dim=0)
    for row, w in zip(x, weights / weights.sum(), strict=True):
        given = testing.machines.posterior(machine, row)
        loss = loss - w * (given.log_weights - machine.energy(given.states)).logsumexp(dim=0)
    slopes = torch.autograd.grad(loss, list(named.values()))
    return dict(zip(named, slopes, strict=True))


def _worst_score(gradients: list[dict], exact: dict) -> float:
    """Return the largest |mean − exact| in standard errors of independent repetitions."""
    worst = 0.0
    for k, truth in exact.items():
        stack = torch.stack([g[k] for g in gradients])
        error = stack.std(dim=0) / len(stack) ** 0.5
        gap = stack.mean(dim=0) - truth
        worst = max(worst, float((gap.abs() / error.clamp(min=1e-9)).max()))
    return worst


def _gradients(machine, method, x, updates: int, burn: int = 0) -> list[dict]:
    """Mean gradients of independent repetitions, each over `updates` updates at fixed parameters."""
    out = []
    for seed in range(_REPEATS):
        generator = Generator().manual_seed(seed)
        chains, total = method.init(machine, x, generator), {}
        for i in range(burn + updates):
            phases = method.step(machine, x, chains, generator)
            chains = phases.chains
            if i >= burn:
                g = machine.gradient(phases.positive, phases.negative)
                total = {k: total.get(k, 0) + t / updates for k, t in g.items()}
        out.append(total)
    return out


# CD.


@pytest.mark.parametrize("name", MACHINES)
def test_cd_with_many_steps_has_the_exact_gradient(name):
    machine = MACHINES[name]()
    x = _rows(machine)
    found = _gradients(machine, CD(steps=25), x.repeat(10, 1), updates=1)
    assert _worst_score(found, _exact(machine, x)) < 5


def test_cd_1_is_biased():
    """The wrong-answer twin of the test above, on couplings strong enough to show it."""
    machine = small_machine(Bernoulli(3), Bernoulli(2), scale=2.0)
    x = _rows(machine, 1)
    exact = _exact(machine, x)
    assert _worst_score(_gradients(machine, CD(1), x.repeat(200, 1), 1), exact) > 8
    assert _worst_score(_gradients(machine, CD(100), x.repeat(200, 1), 1), exact) < 5


@pytest.mark.parametrize("name", MACHINES)
def test_gradient_of_the_wrong_sign_or_target_would_be_seen(name):
    machine = MACHINES[name]()
    x = _rows(machine)
    found = _gradients(machine, CD(steps=5), x.repeat(10, 1), updates=1)
    exact = {k: -t for k, t in _exact(machine, x).items()}
    assert _worst_score(found, exact) > 8


def test_cd_keeps_no_chains_and_leaves_parameters_alone(generator):
    machine = models.rbm(3, 2)
    method, x = CD(2), torch.ones(4, 3)
    before = {k: p.clone() for k, p in machine.state_dict().items()}
    assert method.init(machine, x, generator) is None
    phases = method.step(machine, x, None, generator)
    assert phases.chains is None
    assert all(torch.equal(before[k], p) for k, p in machine.state_dict().items())
    assert all(not t.requires_grad for t in [*phases.positive.values(), *phases.negative.values()])


# PCD.


@pytest.mark.parametrize("name", MACHINES)
def test_pcd_at_fixed_parameters_has_the_exact_gradient(name):
    """Chains ≠ batch: 7 chains beside 11 rows. (Mean field has the gradient of its bound instead.)"""
    machine = MACHINES[name]()
    x = _rows(machine)
    method = PCD(steps=2, chains=7, inference="gibbs")
    found = _gradients(machine, method, x, updates=4, burn=8)
    assert _worst_score(found, _exact(machine, x)) < 5


def test_pcd_moves_on_from_its_chains(generator):
    machine = pair("bernoulli", "bernoulli").float()
    x = _rows(machine)
    method = PCD(steps=1, chains=5, start="noise")
    chains = method.init(machine, x, generator)
    phases = method.step(machine, x, chains, Generator().manual_seed(1))
    state, info = Gibbs().step(machine, chains, Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(phases.chains.layers, state.layers, strict=True))
    negative = machine.mean_statistics(state.layers, 1, None, info.fields)
    for k, t in negative.items():
        torch.testing.assert_close(phases.negative[k], t)
    assert [s.shape for s in phases.chains.layers] == [(5, 3), (5, 2)]


@pytest.mark.parametrize("where", ["reference", "noise", "data"])
@pytest.mark.parametrize(
    "visible",
    [
        lambda: Bernoulli(4),
        lambda: Spin(4),
        lambda: Softmax(2, 2),
        lambda: ReLU(4),
        lambda: Mixed([Gaussian(2), Bernoulli(2)]),
    ],
    ids=["bernoulli", "spin", "softmax", "relu", "mixed"],
)
def test_pcd_chains_start_at_states_not_at_rates(where, visible, generator):
    """ "PCD chains started at sigmoid(mean)": every chain is a valid state of every layer."""
    machine = models.rbm(visible(), Bernoulli(3))
    x = machine.layers[0].domain.noise(50, generator)
    chains = PCD(chains=30, start=where).init(machine, x, generator)
    _assert_states(machine, chains)


@pytest.mark.parametrize("where", ["reference", "data"])
def test_pcd_chains_of_grey_data_are_bits(where, generator):
    machine = models.rbm(2, 3)
    x = torch.tensor([[0.2, 0.9]]).repeat(100, 1)
    chains = PCD(chains=4000, start=where).init(machine, x, generator)
    _assert_states(machine, chains)
    rate = (100 * x[0] + 0.5) / 101 if where == "reference" else x[0]
    error = (rate * (1 - rate) / 4000).sqrt()
    assert float(((chains.layers[0].mean(dim=0) - rate) / error).abs().max()) < 4.5


def _assert_states(machine: BoltzmannMachine, chains: ChainState) -> None:
    for u, s in zip(machine.layers, chains.layers, strict=True):
        tables = u.domain.blocks()
        for table, part in zip(tables, s.split(u.domain.widths, dim=1), strict=True):
            if table is not None:
                assert bool((part[:, None] == table).all(dim=-1).any(dim=1).all())
        u.domain.check(s)


def test_a_refreshed_chain_starts_anew():
    machine = models.rbm(2, 1)
    with torch.no_grad():
        machine.joints[0].weight.fill_(40.0)
        machine.layers[0].bias.fill_(-20.0)
        machine.layers[1].bias.fill_(-40.0)
    # Two modes that never exchange: all chains are held in the one, and only noise leaves it.
    ones = ChainState((torch.ones(200, 2), torch.ones(200, 1)))
    for refresh in (0.0, 0.5):
        chains, method = ones, PCD(chains=200, refresh=refresh)
        for seed in range(5):
            generator = Generator().manual_seed(seed)
            chains = method.step(machine, torch.ones(2, 2), chains, generator).chains
        assert bool((chains.layers[0] == 1).all()) is (refresh == 0.0)


# Both phases.


@pytest.mark.parametrize("method", [CD(3), PCD(chains=4)], ids=["cd", "pcd"])
@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "mixed-gaussian"])
def test_sample_weights_equal_repeated_rows(method, name, generator):
    machine = MACHINES[name]()
    x = _rows(machine, 3)
    weights = torch.tensor([1.0, 3.0, 2.0]).double()
    chains = method.init(machine, x, generator)
    weighted = method.step(machine, x, chains, generator, weights).positive
    repeated = method.step(machine, x.repeat_interleave(weights.long(), dim=0), chains, generator)
    plain = method.step(machine, x, chains, generator).positive
    for k, t in repeated.positive.items():
        torch.testing.assert_close(weighted[k], t)
    assert any(not torch.allclose(weighted[k], plain[k]) for k in plain)


def test_weighted_cd_has_the_weighted_exact_gradient():
    """CD's chains start at the rows, so their weights go along; in the long run they cancel."""
    machine = MACHINES["bernoulli"]()
    x = _rows(machine, 5)
    weights = torch.tensor([0.1, 2.0, 0.0, 1.0, 3.0]).double()
    found = []
    for seed in range(_REPEATS):
        phases = CD(25).step(machine, x.repeat(20, 1), None, Generator().manual_seed(seed),
                             weights.repeat(20))  # fmt: skip
        found.append(machine.gradient(phases.positive, phases.negative))
    assert _worst_score(found, _exact(machine, x, weights)) < 5
    assert _worst_score(found, _exact(machine, x)) > 8


class Stuck(Gibbs):
    """A sampler that does not move."""

    def step(self, machine, state, generator, clamps=None):
        return state, Info(machine.fields(1, state.layers))


def test_weights_of_cd_weigh_both_phases(generator):
    """Chains that stay at their rows must leave no gradient, whatever the weights."""
    machine = MACHINES["gaussian"]()
    weights = torch.tensor([1.0, 5.0, 0.5]).double()
    phases = CD(sampler=Stuck()).step(machine, _rows(machine, 3), None, generator, weights)
    for k, g in machine.gradient(phases.positive, phases.negative).items():
        torch.testing.assert_close(g, torch.zeros_like(g), msg=lambda m, k=k: f"{k}: {m}")


def test_rows_of_weight_zero_do_not_count(generator):
    machine = MACHINES["gaussian"]()
    x = _rows(machine, 4)
    x[3] = 1e6
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0]).double()
    with_row = machine.mean_statistics((x,), 1, weights)
    without = machine.mean_statistics((x[:3],), 1)
    for k, t in without.items():
        torch.testing.assert_close(with_row[k], t)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian-relu", "mixed-gaussian"])
def test_positive_phase_of_one_hidden_layer_is_exact(name, generator):
    machine = MACHINES[name]()
    x = _rows(machine, 5)
    positive = CD().step(machine, x, None, generator).positive
    tables = [testing.machines.posterior(machine, row) for row in x]
    truth = testing.machines.mean_statistics(
        machine, [t.states for t in tables], [t.probabilities for t in tables]
    )
    for k, t in truth.items():
        torch.testing.assert_close(positive[k], t, rtol=1e-6, atol=1e-6)


def test_positive_phase_of_deep_machines_is_the_posterior():
    machine = MACHINES["deep"]()
    x = _rows(machine, 1)
    table = testing.machines.posterior(machine, x[0])
    truth = machine.mean_statistics(table.states, None, table.probabilities)
    found = [
        CD().step(machine, x.repeat(300, 1), None, Generator().manual_seed(s)).positive
        for s in range(_REPEATS)
    ]
    learned = {k for k, _ in machine.named_parameters()}
    with torch.no_grad():
        exact = {k: t for k, t in truth.items() if k in learned and not k.startswith("units.0")}
    assert _worst_score(found, exact) < 5


def test_visible_layer_of_deep_machines_is_held_in_the_positive_phase(generator):
    machine = MACHINES["deep"]()
    x = _rows(machine, 6)
    assert torch.equal(posterior(machine, x, generator)[0], x)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "method", [CD(2), CD(sampler=Stuck()), PCD(2, 5), PCD(2, 5, sampler=Stuck())]
)
@pytest.mark.parametrize("name", ["bernoulli", "gaussian-relu", "mixed-gaussian", "deep"])
def test_gradient_of_both_phases_at_once_is_that_of_their_means(name, method, weighted, generator):
    machine = MACHINES[name]()
    x = _rows(machine, 4)
    weights = torch.tensor([1.0, 5.0, 0.5, 0.0]).double() if weighted else None
    chains = method.init(machine, x, generator)
    with torch.no_grad():
        phases = method.step(machine, x, chains, generator, weights)
        truth = machine.gradient(phases.positive, phases.negative)
        found = phases.gradient(machine, machine.learned(), torch.tensor(0.3).double())
    assert set(found) == set(truth)
    for k, g in truth.items():
        torch.testing.assert_close(found[k], 0.3 * g, msg=lambda m, k=k: f"{k}: {m}")
    for i, u in enumerate(machine.layers):
        mean = unit.state_mean(u, unit.select(phases.positive, f"units.{i}."))
        torch.testing.assert_close(phases.mean(machine, i), mean)


@pytest.mark.parametrize("name", ["bernoulli", "mixed-gaussian", "deep"])
def test_a_step_beside_data_is_the_same_step(name):
    machine = MACHINES[name]()
    x = _rows(machine, 4)
    gibbs = Gibbs()
    state = gibbs.init(machine, _rows(machine, 6), Generator().manual_seed(1))
    data = posterior(machine, x, Generator().manual_seed(2))
    alone, info = gibbs.step(machine, state, Generator().manual_seed(4))
    chains, both, fields = gibbs.beside(machine, state, data, Generator().manual_seed(4))
    for a, b in zip(alone.layers, chains.layers, strict=True):
        torch.testing.assert_close(a, b)
    for i, f in machine.fields(1, data).items():
        torch.testing.assert_close(fields[i], torch.cat([f, info.fields[i]]))
    for i in range(0, len(data), 2):
        assert torch.equal(both[i], torch.cat([data[i], chains.layers[i]]))


def test_a_sampler_with_a_step_of_its_own_steps_alone(generator):
    machine = MACHINES["bernoulli"]()
    x = _rows(machine, 2)
    assert Stuck().beside(machine, Gibbs().init(machine, x, generator), (x, x), generator) is None


def test_fixed_parameters_have_no_gradient(generator):
    machine = models.hopfield(4, 2)
    x = torch.ones(3, 4)
    phases = PCD(chains=5).step(machine, x, PCD(chains=5).init(machine, x, generator), generator)
    found = machine.gradient(phases.positive, phases.negative)
    assert set(found) == {"units.0.bias", "connections.0.weight"}


class Counting(Gibbs):
    """A sampler with a state of its own: how often it stepped."""

    def init(self, machine, visible, generator, clamps=None):
        state = super().init(machine, visible, generator, clamps)
        return ChainState(state.layers, {"steps": torch.zeros(())})

    def step(self, machine, state, generator, clamps=None) -> tuple[ChainState, Info]:
        after, info = super().step(machine, state, generator, clamps)
        return ChainState(after.layers, {"steps": state.extra["steps"] + 1}), info


@pytest.mark.parametrize("make", [CD, PCD])
def test_any_sampler_makes_and_keeps_its_own_state(make, generator):
    machine = models.rbm(3, 2)
    x = torch.ones(4, 3)
    method = make(steps=3, sampler=Counting())
    chains = method.init(machine, x, generator)
    for _ in range(2):
        phases = method.step(machine, x, chains, generator)
        chains = phases.chains
    if make is PCD:
        assert float(chains.extra["steps"]) == 6


@pytest.mark.parametrize("method", [CD(2), PCD(steps=2, chains=3)], ids=["cd", "pcd"])
def test_a_generator_fixes_both_phases(method):
    machine = MACHINES["deep"]()
    x = _rows(machine)
    before = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        generator = Generator().manual_seed(seed)
        found.append(method.step(machine, x, method.init(machine, x, generator), generator))
    name = "connections.0.weight"
    assert torch.equal(found[0].negative[name], found[1].negative[name])
    assert torch.equal(found[0].positive[name], found[1].positive[name])
    assert not torch.equal(found[0].negative[name], found[2].negative[name])
    assert torch.equal(before, torch.get_rng_state())


# Settings.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CD(0), "steps of CD must be a whole number of at least 1, and 0 is not"),
        (lambda: CD(-3), "steps of CD"),
        (lambda: PCD(steps=0), "steps of PCD"),
        (lambda: PCD(chains=0), "number of chains"),
        (lambda: PCD(chains=True), "number of chains"),
        (lambda: PCD(inference="exact"), "positive phase is mean-field or gibbs, not 'exact'"),
        (lambda: PCD(start="sigmoid"), "noise, reference, data, not from 'sigmoid'"),
        (lambda: estimators.from_spec({"kind": "cdk"}), "no method 'cdk'; known are cd, pcd"),
        (lambda: estimators.from_spec({}), "no method ''"),
        (lambda: estimators.from_spec({"kind": "cd", "chains": 3}), "does not take the settings"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(make, words):
    with pytest.raises(GibbsianError, match=words) as caught:
        make()
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "method",
    [
        CD(3), PCD(steps=2, chains=7, start="noise", refresh=0.1), PCD(inference="gibbs"),
    ],
)  # fmt: skip
def test_a_method_is_rebuilt_from_its_settings(method):
    again = estimators.from_spec(method.config)
    assert type(again) is type(method) and again.config == method.config


def test_more_chains_than_memory_allows_are_refused(generator):
    machine = models.rbm(3, 2)
    with pytest.raises(TrainingError, match=r"chains need about .* ask for fewer chains"):
        PCD(chains=10**15).init(machine, torch.ones(2, 3), generator)


def test_pcd_without_its_chains_is_refused(generator):
    with pytest.raises(TrainingError, match="call init first"):
        PCD().step(models.rbm(3, 2), torch.ones(2, 3), None, generator)
