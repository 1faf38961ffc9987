"""Machines of every pair of units against enumeration or quadrature; wrong machines must fail."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Generator

from gibbsian import models, testing
from gibbsian.connections import Dense
from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamp
from gibbsian.testing import machines as kit
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin

# Visible layers have two units and hidden ones one or two: at most three real columns a machine.
VISIBLE = {
    "bernoulli": lambda: Bernoulli(3),
    "spin": lambda: Spin(2),
    "gaussian": lambda: Gaussian(2),
    "relu": lambda: ReLU(2, learn=True),
    "softmax": lambda: Softmax(2, 3),
    "binomial": lambda: Binomial(2, 3),
    "mixed": lambda: Mixed([Gaussian(1), Softmax(1, 3), Bernoulli(1)]),
}
HIDDEN = {
    "bernoulli": lambda: Bernoulli(2),
    "spin": lambda: Spin(3),
    "gaussian": lambda: Gaussian(1),
    "relu": lambda: ReLU(1),
    "softmax": lambda: Softmax(1, 3),
    "binomial": lambda: Binomial(2, 2),
    "mixed": lambda: Mixed([Bernoulli(1), ReLU(1, learn=True)]),
}
PAIRS = list(itertools.product(VISIBLE, HIDDEN))


def small_machine(*layers, scale=0.6, seed=0):
    """A machine away from its defaults, with unbounded pairs kept well inside the proper region."""
    machine = testing.perturbed(models.layered(*layers), scale, seed)
    norm = machine.coupling_norm()
    if norm > 0.6:
        with torch.no_grad():
            for c in machine.joints:
                c.weight.mul_(0.6 / norm)
    return machine


def pair(visible: str, hidden: str, seed: int = 0) -> BoltzmannMachine:
    return small_machine(VISIBLE[visible](), HIDDEN[hidden](), seed=seed)


@pytest.mark.parametrize(("visible", "hidden"), PAIRS)
def test_pair_of_units(visible, hidden):
    testing.check_machine(pair(visible, hidden), seed=1)


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (Bernoulli(3), Spin(2), Bernoulli(2)),
        lambda: (Gaussian(1), Bernoulli(2), Softmax(1, 3)),
        lambda: (Gaussian(1), ReLU(1), Gaussian(1)),
        lambda: (Softmax(1, 3), Binomial(2, 2), Spin(1), Bernoulli(2)),
    ],
    ids=["bernoulli-spin-bernoulli", "gaussian-bernoulli-softmax", "all-real", "four-layers"],
)
def test_deep_machine(layers):
    testing.check_machine(small_machine(*layers(), seed=2), seed=1)


# The truth itself.


def test_enumeration_lists_every_state_once():
    table = testing.enumerate_states(pair("softmax", "binomial"))
    assert table.shape == (3, 3, 3, 3)
    assert len(torch.cat(table.states, dim=1).unique(dim=0)) == 81
    torch.testing.assert_close(float(table.probabilities.sum()), 1.0)


def test_log_z_of_independent_bits_is_n_log_2():
    assert testing.enumerate_states(models.rbm(3, 2)).log_z == pytest.approx(5 * math.log(2))


def test_gaussian_gaussian_log_z_is_the_determinants():
    """log Z = ½(n+m) log 2π − ½ log det Λ + ½ θᵀ Λ⁻¹ θ, with Λ = [[Γ_v, −W], [−Wᵀ, Γ_h]]."""
    for seed in range(3):
        m = small_machine(Gaussian(2), Gaussian(1), seed=seed)
        with torch.no_grad():
            precision = torch.diag(torch.cat([u.log_precision.exp() for u in m.layers]))
            precision[:2, 2:] = -m.joints[0].weight
            precision[2:, :2] = -m.joints[0].weight.T
            theta = torch.cat([u.bias for u in m.layers])
            exact = 1.5 * math.log(2 * math.pi) - 0.5 * torch.logdet(precision)
            exact = exact + 0.5 * theta @ torch.linalg.solve(precision, theta)
        assert testing.enumerate_states(m).log_z == pytest.approx(float(exact), abs=1e-7)


def test_quadrature_does_not_depend_on_its_nodes():
    for hidden in ("bernoulli", "relu"):
        m = pair("gaussian", hidden)
        coarse, fine = (testing.enumerate_states(m, nodes=n).log_z for n in (40, 64))
        assert coarse == pytest.approx(fine, abs=1e-7)


def test_too_many_states_are_refused():
    with pytest.raises(GibbsianError, match="too many"):
        testing.enumerate_states(models.rbm(20, 20))


# Wrong-answer twins.


class EnergiesAveraged(BoltzmannMachine):
    """Energies averaged over units instead of summed."""

    def marginal_energy(self, state, summed=1, clamps=None, fields=None):
        return super().marginal_energy(state, summed, clamps, fields) / self.sizes[0]


class TemperedField(BoltzmannMachine):
    """A field of β = 0.9 in an energy of β = 1."""

    def field(self, layer, state):
        return 0.9 * super().field(layer, state)


class ClampForgotten(BoltzmannMachine):
    """Held units that are summed over all the same."""

    def marginal_energy(self, state, summed=1, clamps=None, fields=None):
        return super().marginal_energy(state, summed, None, fields)


class Ascent(BoltzmannMachine):
    """The gradient of +log p."""

    def gradient(self, positive, negative):
        return super().gradient(negative, positive)


class NaturalForLog(BoltzmannMachine):
    """∂/∂γ written into the gradient of log γ."""

    def gradient(self, positive, negative):
        named = dict(self.named_parameters())
        return {k: negative[k] - positive[k] for k, p in named.items() if p.requires_grad}


class BothAveraged(BoltzmannMachine):
    """⟨v⟩⟨h⟩ in place of ⟨v h⟩: both parities replaced by conditional means."""

    def mean_statistics(self, state, averaged=1, weights=None, fields=None):
        if averaged is not None and len(state) == len(self.layers):
            other = self.fields(1 - averaged, state)
            means = [u.conditional(other[i])["bias"] if i in other else s
                     for i, (u, s) in enumerate(zip(self.layers, state, strict=False))]  # fmt: skip
            state = tuple(means)
        return super().mean_statistics(state, averaged, weights, fields)


class WeightsIgnored(BoltzmannMachine):
    """Sample weights that do not count."""

    def mean_statistics(self, state, averaged=1, weights=None, fields=None):
        return super().mean_statistics(state, averaged, None, fields)


@pytest.mark.parametrize(
    ("wrong", "visible", "check"),
    [
        (EnergiesAveraged, "bernoulli", kit.check_marginal_energy),
        (EnergiesAveraged, "gaussian", kit.check_marginal_energy),
        (TemperedField, "bernoulli", kit.check_marginal_energy),
        (TemperedField, "gaussian", kit.check_likelihood_gradient),
        (ClampForgotten, "softmax", kit.check_marginal_energy),
        (Ascent, "spin", kit.check_gradient),
        (NaturalForLog, "gaussian", kit.check_gradient),
        (BothAveraged, "bernoulli", kit.check_likelihood_gradient),
        (WeightsIgnored, "bernoulli", kit.check_gradient),
    ],
)
def test_a_wrong_machine_fails(wrong, visible, check):
    right = pair(visible, "bernoulli")
    machine = wrong(right.layers, right.joints)
    table = testing.enumerate_states(right)
    check(right, table, 1)
    with pytest.raises(AssertionError):
        check(machine, table, 1)


# Closed forms written out, and settings.


def test_energies_are_summed_over_units_not_averaged():
    """E of a Bernoulli and of a Gaussian machine, term by term in plain loops."""
    m = pair("gaussian", "bernoulli", seed=5)
    v, h = torch.tensor([0.7, -1.3]).double(), torch.tensor([1.0, 0.0]).double()
    w, (a, zeta), (b,) = (
        m.joints[0].weight.tolist(), (p.tolist() for p in m.layers[0].parameters()),
        (p.tolist() for p in m.layers[1].parameters()),
    )  # fmt: skip
    truth = sum(math.exp(zeta[i]) * v[i] ** 2 / 2 - a[i] * v[i] for i in range(2))
    truth -= sum(b[j] * h[j] for j in range(2))
    truth -= sum(v[i] * w[i][j] * h[j] for i in range(2) for j in range(2))
    with torch.no_grad():
        found = m.energy((v[None], h[None]))
    assert float(found[0]) == pytest.approx(float(truth), abs=1e-12)


def test_free_energy_in_single_precision_does_not_overflow():
    m = models.rbm(50, 40)
    for weight, truth in ((1e4, -40 * 50 * 1e4), (-1e4, 0.0)):
        with torch.no_grad():
            m.joints[0].weight.fill_(weight)
            f = m.free_energy(torch.ones(2, 50))
        assert float(f[0]) == pytest.approx(truth, abs=1e-6)


def test_free_energy_keeps_small_differences_among_large_terms():
    """Thousands of units: float32 sums would lose a difference of 0.01 nat."""
    m = models.rbm(20_000, 2)
    with torch.no_grad():
        m.layers[0].bias.fill_(-30.0)
        m.layers[0].bias[0] = 0.01
        v = torch.ones(2, 20_000)
        v[1, 0] = 0.0
        f = m.free_energy(v)
    assert f.dtype == torch.float64
    assert float(f[1] - f[0]) == pytest.approx(0.01, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.uint8, torch.bool])
def test_free_energy_takes_float64_and_uint8_input(dtype):
    m = pair("bernoulli", "spin").float()
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    with torch.no_grad():
        torch.testing.assert_close(m.free_energy(x.to(dtype)), m.free_energy(x))


def test_free_energy_is_for_one_hidden_layer():
    deep = models.layered(Bernoulli(2), Bernoulli(2), Bernoulli(2))
    with pytest.raises(GibbsianError, match="one hidden layer"):
        deep.free_energy(torch.zeros(1, 2))


def test_masks_and_values_may_be_per_chain_or_shared():
    m = pair("bernoulli", "bernoulli")
    state = kit.noise_state(m, 4, 0)
    mask = torch.tensor([True, False])
    values = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).double()
    with torch.no_grad():
        shared = m.marginal_energy(state, 1, {1: Clamp(mask, values)})
        each = m.marginal_energy(state, 1, {1: Clamp(mask.repeat(4, 1), values)})
        rows = [
            m.marginal_energy([s[i : i + 1] for s in state], 1, {1: Clamp(mask, values[i])})
            for i in range(4)
        ]
    torch.testing.assert_close(shared, each)
    torch.testing.assert_close(shared, torch.cat(rows))


def test_sample_weights_of_another_dtype_and_scale():
    m = models.rbm(3, 2)
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    weighted = m.mean_statistics((x,), 1, torch.tensor([2.0, 1.0]).double())
    repeated = m.mean_statistics((torch.cat([x[:1], x]),), 1)
    for k, t in repeated.items():
        torch.testing.assert_close(weighted[k], t)


def test_gradient_covers_learned_parameters_only():
    m = models.hopfield(4, 2)
    stats = m.mean_statistics((torch.zeros(1, 4),), 1)
    assert set(m.gradient(stats, stats)) == {"units.0.bias", "connections.0.weight"}


@pytest.mark.parametrize("hidden", [Gaussian, ReLU])
def test_is_proper_on_both_sides_of_the_border(hidden):
    """‖γ_v^−½ W γ_h^−½‖₂ < 1; at γ_v = 4 and γ_h = 9 the border of one coupling lies at 6."""
    m = models.layered(Gaussian(2, precision=4.0), hidden(1, precision=9.0))
    direction = torch.tensor([[0.6], [0.8]])
    for size, proper in ((5.99, True), (6.01, False)):
        with torch.no_grad():
            m.joints[0].weight.copy_(size * direction)
        assert m.is_proper() is proper
        assert m.coupling_norm() == pytest.approx(size / 6, rel=1e-5)


def test_log_z_diverges_towards_the_border():
    """With θ = 0, log Z + ½ log(1 − ‖B‖²) stays the same: the closed form of the determinant."""
    m = testing.perturbed(models.layered(Gaussian(1), Gaussian(1)), 0.0)
    for size in (0.5, 0.9, 0.95):
        with torch.no_grad():
            m.joints[0].weight.fill_(size)
        found = testing.enumerate_states(m, nodes=120).log_z + 0.5 * math.log(1 - size**2)
        assert found == pytest.approx(math.log(2 * math.pi), abs=1e-6)


def test_is_proper_counts_unbounded_units_only():
    strong = [
        models.rbm(2, 2),
        models.gaussian_rbm(2, 3),
        models.hopfield(3, 2),
        models.layered(Mixed([Bernoulli(2), Gaussian(1)]), Mixed([Spin(1), ReLU(1)])),
    ]
    for m in strong:
        with torch.no_grad():
            m.joints[0].weight.fill_(50.0)
            if m.layers[0].members:
                m.joints[0].weight[2, 1] = 0.5
        assert m.is_proper()
    with torch.no_grad():
        strong[-1].joints[0].weight[2, 1] = 1.5
    assert not strong[-1].is_proper()


def test_is_proper_of_deep_machines_takes_all_layers_together():
    """Each pair alone would be proper; the chain of three is not."""
    m = models.layered(Gaussian(1), Gaussian(1), Gaussian(1))
    with torch.no_grad():
        for c in m.joints:
            c.weight.fill_(0.8)
    precision = np.array([[1, -0.8, 0], [-0.8, 1, -0.8], [0, -0.8, 1.0]])
    assert np.linalg.eigvalsh(precision)[0] < 0
    assert m.coupling_norm() == pytest.approx(0.8 * math.sqrt(2), rel=1e-5)
    assert not m.is_proper()


def test_a_coupling_that_is_not_finite_is_not_proper():
    m = models.layered(Gaussian(2), Gaussian(2))
    with torch.no_grad():
        m.joints[0].weight[0, 0] = torch.nan
    assert math.isnan(m.coupling_norm()) and not m.is_proper()


@pytest.mark.parametrize(
    ("layers", "joints", "words"),
    [
        ([Bernoulli(2)], [], "at least two layers"),
        ([Bernoulli(2), Bernoulli(3)], [], "connections were given"),
        ([Bernoulli(2), Bernoulli(3)], [Dense(3, 2)], "joins 3 units to 2"),
    ],
)
def test_layers_and_connections_must_fit(layers, joints, words):
    with pytest.raises(GibbsianError, match=words):
        BoltzmannMachine(layers, joints)


def test_check_names_what_is_wrong():
    m = models.gaussian_rbm(3, 2)
    m.check(torch.zeros(2, 3))
    with pytest.raises(DataError, match="the rows have shape 2×2"):
        m.check(torch.zeros(2, 2), "the rows")
    with pytest.raises(DataError, match="1 values that are NaN"):
        m.check(torch.tensor([[0.0, math.nan, 0.0]]))
    with pytest.raises(DataError, match="no rows"):
        m.check(torch.zeros(0, 3))


def test_parities_and_sizes():
    deep = models.layered(Bernoulli(4), Bernoulli(3), Bernoulli(2))
    assert deep.sizes == (4, 3, 2)
    assert list(deep.parity(0)) == [0, 2] and list(deep.parity(1)) == [1]
    state = [torch.rand(2, n, generator=Generator().manual_seed(0)) for n in deep.sizes]
    both = deep.joints[0].up(state[0]) + deep.joints[1].down(state[2])
    torch.testing.assert_close(deep.field(1, state), both)
