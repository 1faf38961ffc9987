import pytest
import torch
from evaluator_machines import MACHINES, rows

from gibbsian.errors import GibbsianError
from gibbsian.evaluators import (
    autocorrelation_time,
    check_mixing,
    compare_chains,
    diagnose,
    free_energies,
    run_chains,
)
from gibbsian.models import rbm


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def autoregression(draws, chains, phi, seed=0):
    """x_t = φ x_{t−1} + √(1 − φ²) ε: variance 1, τ = (1 + φ)/(1 − φ)."""
    e = noise(draws, chains, seed=seed)
    x = e.clone()
    for t in range(1, draws):
        x[t] = phi * x[t - 1] + (1 - phi**2) ** 0.5 * e[t]
    return x


def sticky():
    """A machine with two modes that single sweeps hardly join, one of them rare."""
    machine = rbm(20, 10)
    with torch.no_grad():
        machine.joints[0].weight.fill_(1.0)
        machine.layers[0].bias.fill_(-4.5)
        machine.layers[1].bias.fill_(-10.0)
    return machine


def test_autocorrelation_time_of_an_autoregression():
    for phi in (0.0, 0.5, 0.9):
        truth = (1 + phi) / (1 - phi)
        found = autocorrelation_time(autoregression(4000, 40, phi))
        assert found == pytest.approx(truth, rel=0.08)
    assert autocorrelation_time(autoregression(4000, 40, -0.5)) == pytest.approx(1 / 3, rel=0.1)


def test_effective_draws_fit_the_autocorrelation_time():
    x = autoregression(3000, 20, 0.8)
    d = diagnose(x, thin=5)
    assert d.autocorrelation_time == pytest.approx(5 * 9, rel=0.1)
    assert d.ess == pytest.approx(60_000 / 9, rel=0.15)
    assert d.rhat < 1.01 and (d.draws, d.chains) == (3000, 20)


def test_chains_that_stay_apart_are_seen():
    x = noise(500, 10) + 3 * noise(10, seed=1)
    d = diagnose(x)
    assert d.rhat > 1.5 and d.ess < 100 and d.autocorrelation_time > 100


def test_energies_that_never_change_are_no_failure():
    d = diagnose(torch.full((50, 4), 2.0))
    assert (d.rhat, d.ess, d.autocorrelation_time) == (1.0, 200.0, 1.0)


def test_equal_energies_do_not_look_like_chains_apart():
    """A few distinct values: ranks broken by position would give each chain its own mean."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (400, 30), generator=g).double()
    assert diagnose(x).rhat < 1.01


def test_a_difference_is_measured_in_standard_errors():
    a, b = autoregression(400, 300, 0.9), autoregression(400, 300, 0.9, seed=1)
    same = compare_chains(a, b)
    assert same.verdict == "equivalent" and abs(same.z) < 3
    other = compare_chains(a + 0.5, b)
    assert other.verdict == "different" and other.standardised == pytest.approx(0.5, abs=0.1)
    few = compare_chains(a[:20, :5], b[:20, :4])
    assert few.verdict == "undecided"


def test_standard_errors_know_of_autocorrelation():
    z, naive = [], []
    for seed in range(150):
        a, b = (autoregression(100, 12, 0.9, seed=2 * seed + i) for i in (0, 1))
        z.append(compare_chains(a, b).z)
        naive.append(float(a.mean() - b.mean()) / (2 / a.numel()) ** 0.5)
    assert 0.8 < torch.tensor(z).std() < 1.25
    assert torch.tensor(naive).std() > 2.5, "the twin, which counts all draws as independent"


def test_runs_keep_little_and_keep_it_right():
    machine = MACHINES["mixed-bernoulli"]
    told = []
    found = run_chains(
        machine, chains=6, steps=103, data=rows(machine, 4), record=(0, 1, 100, 1000), draws=20,
        generator=3, progress=lambda stage, done: told.append((stage, done)),
    )  # fmt: skip
    assert list(found) == ["noise", "data"]
    for trace in found.values():
        assert trace.thin == 6 and trace.at.tolist() == list(range(6, 103, 6))
        assert trace.energies.shape == (17, 6) and trace.energies.dtype == torch.float64
        assert sorted(trace.visible) == [0, 1, 100]
        assert trace.visible[100].shape == (6, machine.sizes[0])
    at_every_step = run_chains(machine, 6, 100, data=rows(machine, 4), record=(100,), generator=3)
    trace = at_every_step["noise"]
    expected = free_energies(machine, trace.visible[100])
    torch.testing.assert_close(trace.energies[-1], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(trace.visible[100], trace.state.layers[0])
    assert {stage for stage, done in told if done == 1.0} == {
        "chains from noise", "chains from data",
    }  # fmt: skip


def test_runs_repeat_with_their_seed():
    machine = MACHINES["three layers"]
    runs = [run_chains(machine, 3, 20, data=rows(machine, 5), generator=s) for s in (1, 1, 2)]
    energies = [r["data"].energies for r in runs]
    assert torch.equal(energies[0], energies[1]) and not torch.equal(energies[0], energies[2])


def test_an_easy_machine_mixes():
    machine = MACHINES["bernoulli-bernoulli"]
    traces = run_chains(machine, 100, 200, data=rows(machine, 20), generator=0)
    found = check_mixing(traces)
    assert found.mixed and found.words()[0].startswith("Mixed")
    assert found.comparison.verdict == "equivalent"
    assert set(found.diagnostics) == {"noise", "data", "all"}
    assert found.steps == 200


def test_a_sticky_machine_does_not():
    """The negative control: data in one mode, noise that falls into the other."""
    traces = run_chains(sticky(), 50, 200, data=torch.ones(5, 20), generator=0)
    found = check_mixing(traces)
    assert not found.mixed
    assert found.comparison.verdict == "different"
    assert found.words()[0].startswith("Not mixed")
    assert found.diagnostics["all"].rhat > 1.2
    assert found.as_dict()["noise_against_data"]["verdict"] == "different"


def test_too_little_is_not_certified():
    machine = MACHINES["bernoulli-bernoulli"]
    found = check_mixing(run_chains(machine, 3, 12, data=rows(machine, 20), generator=0))
    assert not found.mixed and found.words()[0].startswith("Not certified")


def test_impossible_requests_are_refused():
    machine = MACHINES["bernoulli-bernoulli"]
    with pytest.raises(GibbsianError, match="at least one step"):
        run_chains(machine, 3, 0, data=rows(machine, 3))
    with pytest.raises(GibbsianError, match="need the data"):
        run_chains(machine, 3, 5)
    with pytest.raises(GibbsianError, match="at least 2 chains of 4 draws"):
        diagnose(torch.zeros(3, 5))
    with pytest.raises(GibbsianError, match="at least 2 chains of each"):
        compare_chains(torch.zeros(5, 1), torch.zeros(5, 3))
    with pytest.raises(GibbsianError, match="burn-in"):
        check_mixing({}, 0.5)
