import math
import sys

import pytest
import torch
from evaluator_machines import MACHINES, RBMS, rows

from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators import pseudo_likelihood, stochastic_pseudo_likelihood
from gibbsian.models import gaussian_rbm, rbm
from gibbsian.units import Bernoulli, Gaussian, ReLU


def conditional(machine, v, part, values, log_weights):
    """log p(v_part | rest) of one row: free energies of the row at all values of one block."""
    others = v.repeat(len(values), 1)
    others[:, part] = values
    free = machine.double().free_energy(others.double()).detach()
    here = float(machine.free_energy(v[None].double()).detach())
    machine.float()
    return -here - float((log_weights - free).logsumexp(dim=0))


def slow(machine, v, block=None):
    """Σ_b log p(v_b | v_−b) of one row by definition, real columns on a fine, wide grid."""
    total, first = 0.0, 0
    for b, values in enumerate(machine.layers[0].domain.blocks()):
        width = 1 if values is None else values.shape[1]
        if block in (None, b):
            log_weights = torch.zeros(1)
            if values is None:
                low = 0.0 if isinstance(leaf(machine, first), ReLU) else -40.0
                values = torch.linspace(low, 40, 160_001, dtype=torch.float64)[:, None]
                log_weights = torch.full((len(values),), math.log((40 - low) / 160_000)).double()
                log_weights[0] -= math.log(2)  # trapezoid: half a step at the ends
            part = slice(first, first + width)
            total += conditional(machine, v, part, values, log_weights)
        first += width
    return total


def leaf(machine, column):
    units = machine.layers[0]
    for m in units.members or [units]:
        if column < m.size:
            return m
        column -= m.size
    raise IndexError


@pytest.mark.parametrize("name", RBMS)
def test_pseudo_likelihood_equals_its_definition(name):
    machine = MACHINES[name]
    x = rows(machine, 3, seed=1)
    found = pseudo_likelihood(machine, x)
    assert found.dtype == torch.float64
    expected = [slow(machine, v) for v in x]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-5, atol=2e-5)


def test_blocks_are_one_whole_each():
    """The twin: a one-of-K block is not K units by themselves."""
    machine = MACHINES["softmax-bernoulli"]
    x = rows(machine, 4)
    flat = rbm(9, 4)
    flat.load_state_dict(machine.state_dict())
    gap = pseudo_likelihood(machine, x) - pseudo_likelihood(flat, x)
    assert float(gap.abs().min()) > 0.1


@pytest.mark.parametrize(
    "name", ["bernoulli-bernoulli", "spin-bernoulli", "softmax-bernoulli", "binomial-spin",
             "gaussian-bernoulli", "mixed-bernoulli"],
)  # fmt: skip
def test_the_stochastic_estimate_is_right_on_average(name):
    machine = MACHINES[name]
    v = rows(machine, 1, seed=2)
    exact = float(pseudo_likelihood(machine, v))
    found = stochastic_pseudo_likelihood(machine, v.expand(3000, -1).clone(), generator=1)
    blocks = len(machine.layers[0].domain.blocks())
    each = torch.tensor([blocks * slow(machine, v[0], b) for b in range(blocks)]).double()
    distance = (found[:, None] - each).abs().min(dim=1).values
    assert float(distance.max()) < 1e-4, "each draw is one of the blocks' terms"
    assert abs(float(found.mean()) - exact) < 4.5 * float(found.std()) / 3000**0.5
    again = stochastic_pseudo_likelihood(machine, v.expand(3000, -1).clone(), generator=1)
    assert torch.equal(found, again)


def test_no_epsilon_saturates_the_logarithm():
    machine = rbm(4, 2)
    with torch.no_grad():
        machine.layers[0].bias.fill_(-300.0)
    x = torch.ones(2, 4)
    assert pseudo_likelihood(machine, x).tolist() == pytest.approx([-1200.0] * 2)
    assert stochastic_pseudo_likelihood(machine, x, 0).tolist() == pytest.approx([-1200.0] * 2)
    saturated = 4 * math.log(1 / (1 + math.exp(300)) + 1e-8)
    assert saturated > -80, "what an epsilon of 1e-8 would have said"


def test_independent_units_have_their_likelihood():
    """Without couplings the pseudo-likelihood is the likelihood, exactly."""
    machine = gaussian_rbm(Gaussian(3, mean=1.0, precision=4.0), 5)
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Normal(1.0, 0.5).log_prob(x).sum(dim=1).double()
    torch.testing.assert_close(pseudo_likelihood(machine, x), expected, rtol=1e-6, atol=1e-6)


def test_gaussians_given_gaussians_have_a_closed_form():
    """The joint is normal: v_i | v_−i from the precision matrix γ − W γ_h⁻¹ Wᵀ."""
    machine = MACHINES["gaussian-gaussian"]
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    v, h = machine.layers
    with torch.no_grad():
        w = machine.joints[0].weight.double()
        inverse = torch.exp(-h.log_precision.double())
        a = torch.diag(v.log_precision.double().exp()) - (w * inverse) @ w.T
        theta = v.bias.double() + (w * inverse) @ h.bias.double()
        total = torch.zeros(5).double()
        for i in range(2):
            field = theta[i] - a[i, 1 - i] * x[:, 1 - i].double()
            law = torch.distributions.Normal(field / a[i, i], a[i, i] ** -0.5)
            total += law.log_prob(x[:, i].double())
    torch.testing.assert_close(pseudo_likelihood(machine, x), total, rtol=1e-5, atol=1e-5)


def test_strong_couplings_of_a_real_column_are_integrated():
    """Hidden units pull the mean over 80 standard deviations: the grid must reach both ends."""
    machine = gaussian_rbm(Gaussian(1, precision=400.0), 8)
    with torch.no_grad():
        machine.joints[0].weight.copy_(400 * torch.linspace(-0.5, 0.5, 8)[None])
        machine.layers[1].bias.fill_(-3.0)
    x = torch.tensor([[-1.1], [0.0], [1.1]])
    fine = torch.linspace(-3, 3, 600_001, dtype=torch.float64)[:, None]
    log_weights = torch.full((len(fine),), math.log(1e-5)).double()
    expected = [conditional(machine, v, slice(0, 1), fine, log_weights) for v in x]
    found = pseudo_likelihood(machine, x).tolist()
    assert found == pytest.approx(expected, abs=1e-3)


def test_rectified_units_that_oppose_each_other():
    """κ of all units alike would be −0.92, and yet the machine is proper."""
    machine = rbm(Gaussian(1), ReLU(4))
    with torch.no_grad():
        machine.joints[0].weight.copy_(torch.tensor([[0.7, 0.68, -0.7, -0.68]]))
        machine.layers[1].bias.copy_(torch.tensor([0.5, -1.0, -0.3, 0.8]))
    assert machine.is_proper()
    x = torch.tensor([[-6.0], [0.1], [9.0]])
    fine = torch.linspace(-60, 60, 240_001, dtype=torch.float64)[:, None]
    log_weights = torch.full((len(fine),), math.log(5e-4)).double()
    expected = [conditional(machine, v, slice(0, 1), fine, log_weights) for v in x]
    assert pseudo_likelihood(machine, x).tolist() == pytest.approx(expected, abs=1e-4)


def test_chunks_do_not_matter(monkeypatch):
    for name in ("mixed-bernoulli", "relu-bernoulli"):
        machine = MACHINES[name]
        x = rows(machine, 9)
        whole = pseudo_likelihood(machine, x)
        monkeypatch.setattr(
            sys.modules["gibbsian.evaluators.pseudo_likelihood"], "_CHUNK_ELEMENTS", 8
        )
        monkeypatch.setattr(sys.modules["gibbsian.evaluators.pseudo_likelihood"], "_SLAB", 2)
        monkeypatch.setattr(sys.modules["gibbsian.evaluators.quadrature"], "_CHUNK_ELEMENTS", 30)
        torch.testing.assert_close(pseudo_likelihood(machine, x), whole, rtol=0, atol=1e-5)
        monkeypatch.undo()


def test_what_has_no_pseudo_likelihood_is_refused():
    with pytest.raises(DataError, match="none; draw bits from rates"):
        pseudo_likelihood(rbm(3, 2), torch.full((2, 3), 0.5))
    with pytest.raises(GibbsianError, match="one hidden layer only, and this machine has 2"):
        stochastic_pseudo_likelihood(MACHINES["three layers"], torch.zeros(2, 5))
    machine = rbm(Gaussian(1, precision=1e-4), Bernoulli(1))
    with torch.no_grad():
        machine.joints[0].weight.fill_(1e4)
    with pytest.raises(GibbsianError, match="too large against its precision"):
        pseudo_likelihood(machine, torch.zeros(1, 1))
