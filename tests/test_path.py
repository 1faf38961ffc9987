"""The reference machine and the straight path to a target."""

import math

import pytest
import torch
from torch import Generator

from gibbsian import models, testing
from gibbsian.errors import DataError
from gibbsian.path import BaseRatePath, data_statistics, fit_units, reference
from gibbsian.testing.agreement import Agreement
from gibbsian.testing.samplers import compare_states
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin
from gibbsian.units import base as unit

TARGETS = {
    "bernoulli": lambda: models.rbm(3, 2),
    "spin-gaussian": lambda: models.rbm(Spin(2), Gaussian(1)),
    "gaussian": lambda: models.gaussian_rbm(2, 2),
    "relu": lambda: models.relu_rbm(2, 1),
    "softmax-binomial": lambda: models.rbm(Softmax(1, 3), Binomial(2, 3)),
    "mixed": lambda: models.rbm(Mixed([Gaussian(1), Bernoulli(1), ReLU(1, learn=True)]), 2),
    "deep": lambda: models.layered(Bernoulli(2), Spin(2), Gaussian(1)),
}


def _target(name: str, scale: float = 0.4):
    machine = testing.perturbed(TARGETS[name](), scale, seed=4)
    assert machine.is_proper()
    return machine


def _data(machine, rows: int = 500):
    """Rows that differ from what the target would give."""
    generator = Generator().manual_seed(8)
    like = next(machine.parameters())
    fields = torch.linspace(-1, 1, machine.sizes[0]).to(like).expand(rows, -1)
    return testing.perturbed(machine, 0.3, seed=6).layers[0].sample(fields, generator)


@pytest.mark.parametrize("name", TARGETS)
def test_reference_has_the_datas_moments_and_no_couplings(name):
    target = _target(name)
    x = _data(target)
    before = {k: p.clone() for k, p in target.state_dict().items()}
    base = reference(target, x)
    assert all(torch.equal(before[k], p) for k, p in target.state_dict().items())
    assert not any(bool(c.weight.any()) for c in base.joints)
    state = x.mean(dim=0)
    for i, joint in enumerate(target.joints):
        field, ours, theirs = joint.up(state), base.layers[i + 1], target.layers[i + 1]
        with torch.no_grad():
            state = unit.mean(theirs, field)
        for (k, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            if k.endswith("bias"):
                torch.testing.assert_close(a, b + field)
            else:
                assert torch.equal(a, b), "the hidden units keep their other parameters"
    with torch.no_grad():
        mean = unit.mean(base.layers[0], torch.zeros(target.sizes[0]).double())
    torch.testing.assert_close(mean, x.mean(dim=0), rtol=0.01, atol=0.01)


def test_reference_of_real_units_has_the_datas_variance():
    target = _target("gaussian")
    x = _data(target)
    base = reference(target, x)
    precision = base.layers[0].log_precision.detach().exp()
    torch.testing.assert_close(1 / precision, x.var(dim=0, correction=0) + 0.05**2)


@pytest.mark.parametrize("name", TARGETS)
def test_log_z0_and_draws_of_the_start_are_exact(name):
    target = _target(name)
    path = BaseRatePath(reference(target, _data(target)), target)
    table = testing.enumerate_states(path.start)
    assert path.log_z0() == pytest.approx(table.log_z, abs=1e-6)
    agreement = Agreement()
    compare_states(agreement, path.start, table, path.draw(5000, Generator().manual_seed(2)))
    agreement.require("draws of the start")
    wrong = Agreement()
    compare_states(wrong, target, testing.enumerate_states(target),
                   path.draw(5000, Generator().manual_seed(2)))  # fmt: skip
    with pytest.raises(AssertionError):
        wrong.require("draws of the start against the target")


@pytest.mark.parametrize("name", TARGETS)
def test_the_ends_are_the_start_and_the_target(name):
    target = _target(name)
    path = BaseRatePath(reference(target, _data(target)), target)
    state = testing.machines.noise_state(target, 5, 0)
    with torch.no_grad():
        for beta, end in ((0.0, path.start), (1.0, target)):
            for summed in (0, 1):
                torch.testing.assert_close(
                    path.at(beta).marginal_energy(state, summed), end.marginal_energy(state, summed)
                )


@pytest.mark.parametrize("name", TARGETS)
def test_natural_parameters_and_couplings_are_interpolated(name):
    """At β the energy is (1 − β) E_0 + β E_1, so precisions move linearly, not their logarithms."""
    target = _target(name)
    path = BaseRatePath(reference(target, _data(target)), target)
    state = testing.machines.noise_state(target, 5, 0)
    with torch.no_grad():
        e0, e1 = path.start.energy(state), target.energy(state)
        for beta in (0.25, 0.7):
            found = path.at(beta).energy(state)
            torch.testing.assert_close(found, (1 - beta) * e0 + beta * e1)


@pytest.mark.parametrize("name", TARGETS)
def test_machines_on_the_path_are_whole_machines(name):
    """Halfway, closed forms still equal enumeration (β ≠ 1)."""
    target = _target(name)
    path = BaseRatePath(reference(target, _data(target)), target)
    halfway = path.at(0.4)
    testing.check_marginal_energy(halfway, testing.enumerate_states(halfway), 0)


def test_the_path_stays_proper_between_proper_ends():
    """Coupling norm 0.94 at γ = 4, and a start of γ = 0.01: linear γ keeps every machine proper."""
    target = models.layered(Gaussian(1, precision=4.0), Gaussian(1, learn=False))
    with torch.no_grad():
        target.joints[0].weight.fill_(1.88)
    rows = 10 * torch.randn(1000, 1, generator=Generator().manual_seed(0))
    path = BaseRatePath(reference(target, rows), target)
    norms = [path.at(b).coupling_norm() for b in torch.linspace(0, 1, 50).tolist()]
    assert max(norms) < 0.95
    # Interpolating log γ instead would leave the proper region.
    g0 = float(path.start.layers[0].log_precision.detach())
    geometric = [1.88 * b / math.exp(0.5 * ((1 - b) * g0 + b * math.log(4))) for b in (0.7, 0.9)]
    assert max(geometric) > 1


def test_the_path_leaves_its_ends_alone():
    target = _target("gaussian")
    base = reference(target, _data(target))
    before = [{k: t.clone() for k, t in m.state_dict().items()} for m in (base, target)]
    path = BaseRatePath(base, target)
    path.at(0.3)
    for old, m in zip(before, (base, target), strict=True):
        assert all(torch.equal(old[k], t) for k, t in m.state_dict().items())


# Fitting.


def test_statistics_of_chunks_are_those_of_all_rows():
    layer = Mixed([Gaussian(1), Bernoulli(2)])
    x = torch.rand(1001, 3, generator=Generator().manual_seed(0)).round(decimals=1)
    whole, rows = data_statistics(layer, [x])
    parts, same = data_statistics(layer, x.split(170))
    assert rows == same == 1001
    assert all(t.dtype == torch.float64 for t in whole.values())
    for k, t in whole.items():
        torch.testing.assert_close(parts[k], t)
    torch.testing.assert_close(whole["members.0.bias"], x[:, :1].double().mean(dim=0))


def test_a_mean_far_from_zero_does_not_drown_the_variance():
    layer = Gaussian(1, sigma0=0.0)
    x = 3000 + 0.01 * torch.randn(5000, 1, generator=Generator().manual_seed(0)).double()
    fit_units(layer.double(), *data_statistics(layer.double(), [x]))
    assert float(layer.log_precision.detach().exp()) == pytest.approx(1e4, rel=0.1)


def test_weighted_statistics_are_those_of_repeated_rows():
    units = Gaussian(3)
    x = torch.randn(7, 3, generator=Generator().manual_seed(0))
    weights = torch.tensor([0.0, 1, 2, 3, 0, 1, 5])
    found, rows = data_statistics(units, [x[:4], x[4:]], weights)
    repeated, _ = data_statistics(units, [x.repeat_interleave(weights.long(), dim=0)])
    assert rows == 7
    for k, t in repeated.items():
        torch.testing.assert_close(found[k], t)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no rows"):
        data_statistics(Bernoulli(2), [torch.zeros(0, 2)])
    with pytest.raises(DataError, match="no rows"):
        data_statistics(Bernoulli(2), [])


def test_constant_columns_give_a_finite_reference():
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    base = reference(models.rbm(2, 2), x)
    expected = math.log(2.5 / 0.5)
    torch.testing.assert_close(
        base.layers[0].bias.detach(), torch.tensor([-expected, expected]), rtol=1e-5, atol=1e-5
    )
