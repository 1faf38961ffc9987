import math

import pytest
import torch
from evaluator_machines import FINITE_SIDE, MACHINES, RBMS, rows, truth, wide_rbm

from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators import count_states, free_energies, log_likelihood, log_z, states
from gibbsian.models import gaussian_rbm, layered, rbm
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, Softmax, Spin


@pytest.mark.parametrize("name", FINITE_SIDE)
def test_log_z_equals_the_sum_over_all_states(name):
    assert log_z(MACHINES[name]) == pytest.approx(truth(name).log_z, abs=2e-6)


def test_log_z_does_not_depend_on_the_chunk(monkeypatch):
    machine = wide_rbm()
    whole = log_z(machine)
    monkeypatch.setattr("gibbsian.evaluators.exact._CHUNK_ELEMENTS", 140)
    assert log_z(machine) == pytest.approx(whole, abs=1e-10)


def test_states_lists_each_joint_state_once():
    layers = [Mixed([Spin(1), Softmax(1, 3)]), Binomial(2, 2)]
    parts = list(states(layers, chunk=7))
    assert max(len(p[0]) for p in parts) == 7
    whole = torch.cat([torch.cat(p, dim=1) for p in parts])
    assert count_states(layers) == 54 == len(whole) == len(whole.unique(dim=0))
    for u, first in zip(layers, (0, 4), strict=True):
        u.domain.check(whole[:, first : first + u.size])


def test_states_of_real_units_are_refused():
    assert count_states([Bernoulli(2), Gaussian(1)]) is None
    with pytest.raises(GibbsianError, match="finitely many"):
        next(states([Gaussian(1)]))


def test_log_z_refuses_what_is_too_large_or_endless():
    with pytest.raises(GibbsianError, match=r"2\^30.*limit of 2\^25.*AIS"):
        log_z(rbm(40, 30))
    with pytest.raises(GibbsianError, match="limit of 2"):
        log_z(rbm(12, 8), limit_bits=7)
    with pytest.raises(GibbsianError, match="both; estimate log Z by AIS"):
        log_z(gaussian_rbm(2, Gaussian(2)))


def test_log_z_takes_the_smaller_side_of_a_deep_machine():
    machine = layered(Bernoulli(30), Bernoulli(6), Bernoulli(30))
    with torch.no_grad():
        machine.layers[0].bias.fill_(0.3)
    expected = 30 * math.log(1 + math.exp(0.3)) + 36 * math.log(2)
    assert log_z(machine) == pytest.approx(expected, abs=1e-5)


def test_free_energy_in_float32_overflow():
    """Couplings of about 50 give fields of thousands; naive float32 sums overflow, ours do not."""
    g = torch.Generator().manual_seed(0)
    machine = rbm(40, 9)
    with torch.no_grad():
        machine.joints[0].weight.copy_(50 * torch.randn(40, 9, generator=g))
    v = torch.randint(0, 2, (20, 40), generator=g).float()
    w = machine.joints[0].weight.detach()
    naive = -torch.log(1 + torch.exp(v @ w)).sum(dim=1)
    assert not torch.isfinite(naive).any(), "this must overflow, or the test is void"
    field = v.double() @ w.double()
    expected = -torch.logaddexp(field, torch.zeros_like(field)).sum(dim=1)
    torch.testing.assert_close(free_energies(machine, v), expected, rtol=1e-6, atol=1e-3)
    h = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 9)
    field = h @ w.double().T
    z = torch.logaddexp(field, torch.zeros_like(field)).sum(dim=1).logsumexp(dim=0)
    assert log_z(machine) == pytest.approx(float(z), rel=1e-9)


@pytest.mark.parametrize("name", ["bernoulli-bernoulli", "softmax-bernoulli", "hopfield"])
def test_likelihoods_of_all_rows_add_up_to_one(name):
    machine = MACHINES[name]
    v = torch.cat([p[0] for p in states([machine.layers[0]])])
    found = log_likelihood(machine, v, truth(name).log_z)
    assert float(found.rows.logsumexp(dim=0)) == pytest.approx(0, abs=1e-5)
    assert found.mean == pytest.approx(float(found.rows.mean()))
    assert found.standard_error == pytest.approx(float(found.rows.std()) / len(v) ** 0.5)
    assert "probability" in found.units and "density" not in found.units


def test_a_density_says_in_which_units_it_is():
    machine = MACHINES["mixed-bernoulli"]
    x = rows(machine, 5)
    assert "density in the 1 real-valued" in log_likelihood(machine, x, 0.0).units
    said = log_likelihood(machine, x, 0.0, dequantisation="uniform noise of one grey level").units
    assert "uniform noise of one grey level" in said


@pytest.mark.parametrize("name", RBMS)
def test_free_energies_do_not_depend_on_the_chunk(name, monkeypatch):
    machine = MACHINES[name]
    x = rows(machine, 11)
    whole = free_energies(machine, x)
    monkeypatch.setattr("gibbsian.evaluators.free_energy._CHUNK_ELEMENTS", 1)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(free_energies(machine, x), whole, rtol=0, atol=1e-5)


def test_what_has_no_likelihood_is_refused():
    machine = MACHINES["bernoulli-bernoulli"]
    with pytest.raises(DataError, match=r"such as 0\.3"):
        log_likelihood(machine, torch.full((2, 6), 0.3), 0.0)
    with pytest.raises(DataError, match="at least one row"):
        log_likelihood(machine, torch.zeros(0, 6), 0.0)
    deep = MACHINES["three layers"]
    with pytest.raises(GibbsianError, match="one hidden layer"):
        free_energies(deep, torch.zeros(2, 5))
