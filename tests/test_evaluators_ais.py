import copy
import math

import pytest
import torch
from evaluator_machines import MACHINES, exact_samples, rows, truth, wide_rbm

from gibbsian.errors import GibbsianError
from gibbsian.evaluators import (
    Partition,
    ais,
    annealing,
    estimate,
    log_z,
    partition,
    reverse_ais,
    states,
)
from gibbsian.evaluators.annealing import Annealing
from gibbsian.evaluators.schedule import adapted, linear, piecewise
from gibbsian.models import gaussian_rbm, layered, rbm
from gibbsian.path import BaseRatePath, reference
from gibbsian.units import Bernoulli, Gaussian

SIGMAS = 4.5
SMALL = 0.08


def base(name):
    machine = MACHINES[name]
    x = rows(machine, 40, seed=9)
    # Data away from noise, so that the two ends differ in the visible parameters too.
    return reference(machine, 0.5 * x + 0.7 if name.startswith(("gaussian", "relu")) else x[:7])


@pytest.mark.parametrize("name", MACHINES)
def test_ais_finds_log_z(name):
    found = ais(MACHINES[name], base(name), chains=200, temperatures=80, generator=1)
    assert found.standard_error < SMALL
    assert abs(found.log_z - truth(name).log_z) < SIGMAS * found.standard_error
    assert found.chains == 200 == len(found.log_weights)
    assert 100 < found.ess <= 200
    assert found.low < found.log_z < found.high


@pytest.mark.parametrize("name", MACHINES)
def test_reverse_ais_finds_log_z_from_exact_samples(name):
    start = exact_samples(name, 200, seed=4)
    found = reverse_ais(MACHINES[name], base(name), start, temperatures=80, generator=2)
    assert found.standard_error < SMALL
    assert abs(found.log_z - truth(name).log_z) < SIGMAS * found.standard_error
    assert found.direction == "reverse" and found.ess > 100


def test_the_wide_machine_is_found_from_both_sides():
    machine = wide_rbm()
    exact = log_z(machine)
    start = reference(machine, rows(machine, 50))
    v = next(states([machine.layers[0]], 4096))[0]
    p = (-machine.free_energy(v).detach()).softmax(dim=0)
    g = torch.Generator().manual_seed(5)
    x = v[torch.multinomial(p, 400, replacement=True, generator=g)]
    for found in (
        ais(machine, start, 400, 400, generator=g),
        reverse_ais(machine, start, x, 400, generator=g),
    ):
        assert found.standard_error < 0.04
        assert abs(found.log_z - exact) < SIGMAS * found.standard_error


def test_another_machine_is_told_apart():
    """The twin of the tests above: couplings 5 % larger must not pass for the same machine."""
    machine = wide_rbm()
    other = copy.deepcopy(machine)
    with torch.no_grad():
        other.joints[0].weight.mul_(1.05)
    found = ais(other, reference(other, rows(other, 50)), 400, 400, generator=1)
    assert abs(found.log_z - log_z(machine)) > 20 * found.standard_error


def test_reverse_ais_from_wrong_starts_disagrees():
    """Starts that are no samples of the machine give no bound: here all in one improbable mode."""
    machine = rbm(10, 3)
    with torch.no_grad():
        machine.joints[0].weight.fill_(1.0)
        machine.layers[0].bias.fill_(-1.1)
        machine.layers[1].bias.fill_(-3.0)
    start = reference(machine, torch.cat([torch.zeros(5, 10), torch.ones(5, 10)]))
    exact = log_z(machine)
    v = next(states([machine.layers[0]], 1024))[0]
    p = (-machine.free_energy(v).detach()).softmax(dim=0)
    g = torch.Generator().manual_seed(0)
    right = v[torch.multinomial(p, 400, replacement=True, generator=g)]
    wrong = (torch.zeros(400, 10), torch.ones(400, 10))
    good = reverse_ais(machine, start, right, linear(200), g)
    assert abs(good.log_z - exact) < SIGMAS * good.standard_error
    off = [reverse_ais(machine, start, w, linear(200), g) for w in wrong]
    assert max(abs(e.log_z - exact) / e.standard_error for e in off) > 5


def test_the_bounds_lie_on_their_sides_on_average():
    name = "bernoulli-bernoulli"
    exact = truth(name).log_z
    forward = ais(MACHINES[name], base(name), 2000, linear(4), generator=1).log_weights
    start = exact_samples(name, 2000, seed=1)
    backward = reverse_ais(MACHINES[name], base(name), start, linear(4), generator=2)
    upper = -backward.log_weights
    n = 2000**0.5
    assert forward.mean() + 3 * forward.std() / n < exact < upper.mean() - 3 * upper.std() / n


def test_importance_weights_multiplied_in_linear_space():
    """Weights of e^2000 overflow unless they stay on the log scale."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(500, generator=g).double()
    assert torch.isinf(torch.exp(2000 + noise).mean()), "this must overflow, or the test is void"
    found = estimate(2000 + noise, "forward", 1)
    near = estimate(noise, "forward", 1)
    assert found.log_z == pytest.approx(2000 + near.log_z, abs=1e-9)
    assert found.ess == pytest.approx(near.ess)
    assert near.log_z == pytest.approx(math.log(float(noise.exp().mean())))
    assert near.standard_error == pytest.approx(
        float(noise.exp().std() / noise.exp().mean()) / 500**0.5, rel=1e-6
    )


def test_the_interval_covers():
    g = torch.Generator().manual_seed(3)
    draws = 0.5 * torch.randn(1000, 100, generator=g).double()
    inside = [e.low < 0.125 < e.high for e in (estimate(x, "forward", 1) for x in draws)]
    assert 0.925 < sum(inside) / 1000 < 0.97


def test_large_couplings_stay_finite_and_right():
    g = torch.Generator().manual_seed(2)
    machine = rbm(30, 4)
    with torch.no_grad():
        machine.joints[0].weight.copy_(50 * torch.randn(30, 4, generator=g))
    found = ais(machine, reference(machine, rows(machine, 20)), 200, linear(1000), generator=0)
    exact = log_z(machine)
    assert exact > 500
    assert abs(found.log_z - exact) < max(SIGMAS * found.standard_error, 1e-3)


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("name", sorted(MACHINES))
def test_shared_fields_give_the_energies_of_the_path(name, kept):
    machine, start = copy.deepcopy(MACHINES[name]), base(name)
    with torch.no_grad():  # hidden parameters that move as well
        for p in start.layers[1].parameters():
            p.add_(0.4)
    walk = Annealing(machine, start, torch.Generator().manual_seed(0), kept)
    path = BaseRatePath(start, machine)
    with torch.no_grad():
        walk.draw(6)
        for low, high in ((0.0, 0.3), (0.37, 0.38), (0.5, 1.0), (0.7, 0.7)):
            walk.sweep(high)
            expected = path.at(low).marginal_energy(walk.layers, 1 - kept)
            expected = expected - path.at(high).marginal_energy(walk.layers, 1 - kept)
            torch.testing.assert_close(walk.gain(low, high), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("name", ["three layers", "three mixed layers", "four layers"])
def test_either_parity_is_annealed_to_the_same_log_z(name, kept, monkeypatch):
    """From both sides: the default keeps the parity of fewer units, and the other one is as right."""
    machine, start, exact = MACHINES[name], base(name), truth(name).log_z
    monkeypatch.setattr(annealing, "_narrower", lambda machine: kept)
    forward = ais(machine, start, 400, linear(60), generator=1)
    samples = exact_samples(name, 400, seed=2)
    samples[1] = torch.full_like(samples[1], torch.nan)  # odd layers are drawn anew
    backward = reverse_ais(machine, start, samples, linear(60), generator=1)
    for found in (forward, backward):
        assert abs(found.log_z - exact) < SIGMAS * found.standard_error + 1e-3
        assert abs(found.log_z + 0.3 - exact) > SIGMAS * found.standard_error + 1e-3  # a wrong one


def test_deep_machines_keep_the_parity_of_fewer_units():
    sizes = {(6, 3): 0, (3, 6): 0, (8, 5, 10): 1, (3, 9, 2): 0, (4, 4, 4, 4): 0}
    for size, kept in sizes.items():
        machine = layered(*(Bernoulli(n) for n in size))
        start = reference(machine, torch.eye(size[0]))
        assert Annealing(machine, start, torch.Generator()).kept == kept, size


def test_a_temperature_costs_two_products(monkeypatch):
    machine = MACHINES["bernoulli-bernoulli"]
    calls = []
    c = type(machine.joints[0])
    for name in ("up", "down"):
        plain = getattr(c, name)
        monkeypatch.setattr(c, name, lambda *a, plain=plain, **k: calls.append(1) or plain(*a, **k))
    start = base("bernoulli-bernoulli")
    calls.clear()
    ais(machine, start, 5, linear(100), generator=0)
    assert len(calls) == 2 * 99 + 1
    calls.clear()
    reverse_ais(machine, start, rows(machine, 3), linear(100), generator=0)
    assert len(calls) == 2 * 100 + 1


def test_randomness_comes_from_the_generator_alone():
    name = "three layers"
    before = torch.get_rng_state()
    a, b, c = (ais(MACHINES[name], base(name), 3, 25, generator=s).log_weights for s in (7, 7, 8))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_couplings_there_is_nothing_to_estimate():
    machine = rbm(6, 3)
    x = torch.eye(6)
    found = ais(machine, reference(machine, x), 5, linear(1), generator=0)
    # One temperature is plain importance sampling from units of other biases: exact on average.
    assert found.log_z == pytest.approx(9 * math.log(2), abs=1.5)
    uniform = reference(machine, torch.cat([torch.zeros(1, 6), torch.ones(1, 6)]))
    exact = ais(machine, uniform, 2, 3, generator=0)
    assert exact.log_z == pytest.approx(9 * math.log(2), abs=1e-5)
    assert exact.standard_error == pytest.approx(0, abs=1e-6)


def test_schedules_rise_from_0_to_1():
    machine = wide_rbm()
    g = torch.Generator().manual_seed(0)
    start = reference(machine, rows(machine, 30))
    for betas in (linear(37), piecewise(37), adapted(machine, start, 37, g, chains=5)):
        assert len(betas) == 38 and betas[0] == 0 and betas[-1] == 1
        assert bool((betas.diff() > 0).all())
    share = piecewise(14500)
    assert share[500] == pytest.approx(0.5) and share[4500] == pytest.approx(0.9)


def test_the_pilot_puts_temperatures_where_weights_spread():
    """A machine whose transition lies late on the path: late temperatures narrow its weights."""
    machine = rbm(30, 30)
    with torch.no_grad():
        machine.joints[0].weight.fill_(0.1)
        machine.layers[0].bias.fill_(-1.5)
        machine.layers[1].bias.fill_(-1.5)
    g = torch.Generator().manual_seed(0)
    start = reference(machine, (torch.rand(50, 30, generator=g) < 0.3).float())
    betas = adapted(machine, start, 400, g)
    assert betas[200] > 0.65
    late, even = (ais(machine, start, 200, b, g).log_weights.std() for b in (betas, linear(400)))
    assert late < 0.85 * even


def test_impossible_settings_are_refused():
    machine, start = MACHINES["bernoulli-bernoulli"], base("bernoulli-bernoulli")
    with pytest.raises(GibbsianError, match="chains of AIS must be a whole number of at least 2"):
        ais(machine, start, chains=1)
    with pytest.raises(GibbsianError, match="temperatures of AIS must be a whole number"):
        ais(machine, start, temperatures=0)
    with pytest.raises(GibbsianError, match="rise from exactly 0"):
        ais(machine, start, temperatures=[0.0, 0.5, 0.4, 1.0])
    with pytest.raises(GibbsianError, match="has couplings"):
        ais(machine, machine)
    with pytest.raises(GibbsianError, match="differ; build it"):
        ais(machine, base("spin-bernoulli"))
    with pytest.raises(GibbsianError, match="widths"):
        reverse_ais(machine, start, torch.zeros(5, 7))
    with pytest.raises(GibbsianError, match="at least 2 start states"):
        reverse_ais(machine, start, torch.zeros(1, 6))
    broken = copy.deepcopy(machine)
    with torch.no_grad():
        broken.joints[0].weight[0, 0] = torch.nan
    with pytest.raises(GibbsianError, match="not finite"):
        ais(broken, start)


def test_an_improper_machine_is_refused():
    machine = gaussian_rbm(2, Gaussian(2))
    with torch.no_grad():
        machine.joints[0].weight.copy_(torch.eye(2) * 1.5)
    start = reference(machine, torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(GibbsianError, match="no finite partition function"):
        ais(machine, start, 5, 10)


def test_partition_reports_everything_and_tells_progress():
    machine = MACHINES["three layers"]
    told = []
    found = partition(
        machine, rows(machine, 20), chains=60, temperatures=100, equilibrate=50, generator=3,
        progress=lambda stage, done: told.append((stage, done)),
    )  # fmt: skip
    exact = truth("three layers").log_z
    assert found.exact == pytest.approx(exact, abs=1e-5) and found.log_z == found.exact
    assert set(found.reverse) == set(found.gaps) == {"data", "noise", "ladder"}
    assert max(abs(g) for g in found.gaps.values()) < 0.2
    ends = {stage for stage, done in told if done == 1.0}
    backward = {f"reverse AIS from {k}" for k in ("data", "noise", "ladder")}
    assert ends == {"AIS", "tempering"} | backward
    large = partition(machine, rows(machine, 20), chains=60, temperatures=100, equilibrate=50,
                      generator=3, limit_bits=2)  # fmt: skip
    assert large.exact is None and large.converged and "Converged" in large.words()[0]
    assert large.believed is not None and large.log_z == large.believed.value
    assert large.log_z == pytest.approx(exact, abs=0.1)
    alone = partition(machine, rows(machine, 20), sampled=False, limit_bits=10)
    assert alone.ais is None and alone.converged


def test_a_hard_machine_is_called_not_converged_until_its_ladder_is_long_enough():
    g = torch.Generator().manual_seed(0)
    machine = rbm(40, 30)
    with torch.no_grad():
        machine.joints[0].weight.copy_(2 * torch.randn(40, 30, generator=g))
    options = {
        "chains": 20,
        "temperatures": 10,
        "equilibrate": 20,
        "limit_bits": 10,
        "generator": 1,
    }
    found = partition(machine, rows(machine, 20), ladder_steps=20, **options)
    assert found.exact is None and not found.converged
    assert all(w.startswith("Not converged") for w in found.words())
    longer = partition(machine, rows(machine, 20), **options)  # goes on for its round trips
    assert longer.ladder.steps > 20 and longer.believed.name == "ladder"
    # By 200 chains of 4,000 steps, with 198 round trips each: 254.167 [254.134, 254.181].
    assert longer.believed.low < 254.16 < longer.believed.high < 254.8


def test_crossed_bounds_are_called_by_their_cause():
    """Far on the wrong side the starts are to blame; within the errors, too few chains."""
    g = torch.Generator().manual_seed(0)
    narrow, broad = (s * torch.randn(100, generator=g).double() for s in (0.1, 1.0))
    lower = estimate(narrow, "forward", 9)
    sure = Partition(None, lower, {"data": estimate(2 + narrow, "reverse", 9)})
    assert not sure.converged and "not at equilibrium" in sure.words()[0]
    lower = estimate(4 * broad, "forward", 9)
    upper = estimate(0.55 - lower.log_z + 0 * narrow, "reverse", 9)
    unsure = Partition(None, lower, {"noise": upper})
    assert unsure.gaps["noise"] < -0.5
    assert not unsure.converged and "crossed" in unsure.words()[0]
    assert any("effective chains" in w for w in unsure.words())
