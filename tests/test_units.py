"""Every family of units against enumeration or quadrature; wrong families must fail."""

import math
import re

import pytest
import torch
from scipy import stats
from torch import Generator, nn

from gibbsian import testing
from gibbsian import units as families
from gibbsian.errors import DataError, GibbsianError
from gibbsian.testing import units as kit
from gibbsian.units import Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin
from gibbsian.units import base as unit
from gibbsian.units.base import Domain, Units

# The conformance table: one row a family and setting that matters.
LAYERS = {
    "bernoulli": lambda: Bernoulli(3),
    "spin": lambda: Spin(3),
    "gaussian": lambda: Gaussian(3, mean=0.7, precision=2.5),
    "gaussian-fixed": lambda: Gaussian(2, learn=False),
    "relu": lambda: ReLU(3, precision=0.6),
    "relu-learned": lambda: ReLU(2, precision=3.0, learn=True),
    "softmax": lambda: Softmax(2, 3),
    "softmax-two": lambda: Softmax(1, 2),
    "binomial-2": lambda: Binomial(3, 2),
    "binomial-3": lambda: Binomial(2, 3),
    "binomial-20": lambda: Binomial(2, 20),
    "mixed": lambda: Mixed([Gaussian(2), Bernoulli(1), Softmax(2, 3), ReLU(1, learn=True)]),
    "nested": lambda: Mixed([Spin(1), Mixed([Binomial(2, 3), Gaussian(1)])]),
}


@pytest.mark.parametrize("check", testing.UNIT_CHECKS, ids=lambda c: c.__name__[6:])
@pytest.mark.parametrize("name", LAYERS)
def test_conformance(name, check):
    check(LAYERS[name](), seed=3)


def test_check_units_runs_all_checks():
    testing.check_units(Bernoulli(2), seed=9)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_the_sum_of_a_log_partition_is_the_same_by_a_kernel(name, wide):
    layer = testing.perturbed(LAYERS[name](), 1.0, seed=4).to(wide)
    f = 5 * torch.randn(4, 7, layer.size, generator=Generator().manual_seed(1), dtype=wide)
    truth = layer.double().log_partition(f.double()).sum(dim=-1).detach()
    layer.to(wide)
    with torch.no_grad():
        found = unit.log_partition_sum(layer, f)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, truth, rtol=2e-6, atol=2e-6)
    asked = unit.log_partition_sum(layer, f.requires_grad_())
    torch.testing.assert_close(asked.detach(), truth, rtol=2e-6, atol=2e-6)
    (slope,) = torch.autograd.grad(asked.sum(), f)
    torch.testing.assert_close(slope, unit.mean(layer, f.detach()).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [Bernoulli, Spin])
def test_the_sum_of_a_log_partition_at_extreme_fields(family):
    layer = family(3)
    f = torch.tensor([[0.0, 1e6, -1e6], [-200.0, 200.0, 80.0]])
    with torch.no_grad():
        found = unit.log_partition_sum(layer, f)
    truth = layer.double().log_partition(f.double()).sum(dim=-1).detach()
    torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-6)


# Wrong-answer twins: a family with one mistake, and the check that must see it.


class ReturnsMean(Gaussian):
    """Gaussian visibles without noise."""

    def sample(self, f, generator=None):
        return self.conditional(f)["bias"].detach()


class VarianceAsStd(Gaussian):
    """The variance used as a standard deviation."""

    def sample(self, f, generator=None):
        precision = self.log_precision.detach().exp()
        noise = torch.randn(f.shape, generator=generator, dtype=f.dtype)
        return (f + self.bias.detach()) / precision + noise / precision


class PrecisionForgotten(Gaussian):
    """The field added to the mean as if the precision were 1."""

    def conditional(self, f):
        precision = self.log_precision.exp()
        m = f + self.bias / precision
        return {"bias": m, "log_precision": -0.5 * (m * m + 1 / precision)}


class MeanSquared(Gaussian):
    """E[s²] taken for E[s]², as when statistics are formed from mean states."""

    def conditional(self, f):
        m = super().conditional(f)["bias"]
        return {"bias": m, "log_precision": -0.5 * m * m}


class NoNormaliser(Gaussian):
    """Γ without its ½ log(2π/γ)."""

    def log_partition(self, f):
        x = f + self.bias
        return x * x / (2 * self.log_precision.exp())


class Clipped(ReLU):
    """max(0, x) in place of a truncated Gaussian: mass piles up at 0."""

    def sample(self, f, generator=None):
        root = (0.5 * self.log_precision.detach()).exp()
        x = (f + self.bias.detach()) / root**2
        noise = torch.randn(f.shape, generator=generator, dtype=f.dtype)
        return (x + noise / root).clamp(min=0)


class NoMultiplicity(Binomial):
    """Counts without their binomial coefficients."""

    def statistics(self, s):
        return {"bias": s, "log_multiplicity": torch.zeros_like(s)}


class Rates(Bernoulli):
    """Rates returned as samples."""

    def sample(self, f, generator=None):
        return self.conditional(f)["bias"].detach()


class Biased(Bernoulli):
    """A draw that is 2 % too often 1."""

    def sample(self, f, generator=None):
        p = torch.sigmoid(f + self.bias.detach()) + 0.02
        return (torch.rand(f.shape, generator=generator, dtype=f.dtype) < p).to(f.dtype)


class Repeats(Bernoulli):
    """One uniform shared by two neighbouring chains."""

    def sample(self, f, generator=None):
        s = super().sample(f, generator)
        s[1::2] = s[0::2]
        return s


class Linked(Spin):
    """One uniform shared by all columns of a row."""

    def sample(self, f, generator=None):
        u = torch.rand((*f.shape[:-1], 1), generator=generator, dtype=f.dtype)
        return 2 * (u < torch.sigmoid(2 * (f + self.bias.detach()))).to(f.dtype) - 1


class GlobalDice(Bernoulli):
    """Draws from the global generator."""

    def sample(self, f, generator=None):
        return super().sample(f, None)


class Overflows(Bernoulli):
    """Γ by a naive logarithm."""

    def log_partition(self, f):
        return torch.log1p(torch.exp(f + self.bias))


class Saturates(Bernoulli):
    """Γ through an ε."""

    def log_partition(self, f):
        return -torch.log(1 - torch.sigmoid(f + self.bias) + 1e-6)


class SpreadGamma(Softmax):
    """A block's Γ spread over its columns: held blocks would be counted wrongly."""

    def log_partition(self, f):
        total = super().log_partition(f)
        blocks = total.unflatten(-1, (-1, self.categories))
        return blocks.sum(-1, keepdim=True).expand_as(blocks).flatten(-2) / self.categories


class HalfStatistics(Gaussian):
    """E[T] of the precision with the factor −½ left out."""

    def conditional(self, f):
        out = super().conditional(f)
        return out | {"log_precision": -2 * out["log_precision"]}


TWINS = [
    (lambda: ReturnsMean(2), kit.check_samples),
    (lambda: VarianceAsStd(2, precision=3.0), kit.check_samples),
    (lambda: PrecisionForgotten(2), kit.check_mean),
    (lambda: MeanSquared(2), kit.check_conditional),
    (lambda: NoNormaliser(2), kit.check_log_partition),
    (lambda: HalfStatistics(2), kit.check_conditional),
    (lambda: Clipped(2), kit.check_samples),
    (lambda: NoMultiplicity(2, 3), kit.check_log_partition),
    (lambda: NoMultiplicity(2, 3), kit.check_entropy),
    (lambda: Rates(2), kit.check_samples),
    (lambda: Biased(2), kit.check_samples),
    (lambda: Repeats(2), kit.check_samples),
    (lambda: Linked(2), kit.check_samples),
    (lambda: GlobalDice(2), kit.check_randomness),
    (lambda: Overflows(2), kit.check_extremes),
    (lambda: Saturates(2), kit.check_log_partition),
    (lambda: SpreadGamma(2, 3), kit.check_log_partition),
]


@pytest.mark.parametrize(
    ("layer", "check"), TWINS, ids=[f"{type(t()).__name__}-{c.__name__[6:]}" for t, c in TWINS]
)
def test_a_wrong_family_fails(layer, check):
    with pytest.raises(AssertionError):
        check(layer(), seed=3)


class AnyValue(Domain):
    """A domain that checks nothing."""

    def __init__(self, size):
        self.size = size

    def check(self, x):
        pass

    def noise(self, chains, generator):
        return Bernoulli(self.size).domain.noise(chains, generator)

    def blocks(self):
        return Bernoulli(self.size).domain.blocks()

    def natural(self, mean, rows):
        return {"bias": torch.logit(mean["bias"])}


@pytest.mark.parametrize("check", [kit.check_domain, kit.check_fit], ids=["domain", "fit"])
def test_a_wrong_domain_fails(check):
    layer = Bernoulli(2)
    layer.domain = AnyValue(2)
    with pytest.raises(AssertionError):
        check(layer)


# A family of somebody else's: the kit needs nothing but the interface.


class Thirds(Domain):
    def __init__(self, size):
        self.size = size

    def check(self, x):
        if bool(((x != 0) & (x.abs() != 1)).any()):
            raise DataError("Ternary units take the values −1, 0 and 1; use other units.")

    def noise(self, chains, generator):
        return torch.randint(-1, 2, (chains, self.size), generator=generator).float()

    def blocks(self):
        return [torch.tensor([[-1.0], [0.0], [1.0]])] * self.size

    def natural(self, mean, rows):
        m = mean["bias"].double() * rows / (rows + 1)
        return {"bias": torch.log((m + (4 - 3 * m**2).sqrt()) / (2 * (1 - m)))}


class Ternary(Units):
    def __init__(self, size):
        super().__init__(Thirds(size), {"size": size})
        self.bias = nn.Parameter(torch.zeros(size))

    def _logits(self, f):
        x = f + self.bias
        return torch.stack([-x, torch.zeros_like(x), x], dim=-1)

    def statistics(self, s):
        return {"bias": s}

    def conditional(self, f):
        p = self._logits(f).softmax(-1)
        return {"bias": p[..., 2] - p[..., 0]}

    def log_partition(self, f):
        return self._logits(f).logsumexp(-1)

    def sample(self, f, generator=None):
        p = self._logits(f).softmax(-1).detach()
        u = torch.rand(f.shape, generator=generator, dtype=f.dtype)
        return (u < p[..., 2]).to(f.dtype) - (u >= 1 - p[..., 0]).to(f.dtype)


@pytest.mark.parametrize(
    "check",
    [c for c in testing.UNIT_CHECKS if c is not kit.check_spec],
    ids=lambda c: c.__name__[6:],
)
def test_a_new_family_inherits_the_kit(check):
    check(Ternary(3), seed=5)


def test_a_family_that_is_not_registered_fails_check_spec():
    with pytest.raises(GibbsianError, match="no units called 'Ternary'"):
        kit.check_spec(Ternary(2))


# Closed forms and settings, family by family.


def test_binomial_is_scipys_binomial():
    u = testing.perturbed(Binomial(1, 5), seed=2)
    p = float(torch.sigmoid(u.bias.detach()))
    s = torch.arange(6.0).double()[:, None]
    with torch.no_grad():
        found = (-unit.energy(u, s) - u.log_partition(torch.zeros(1).double())).exp()
    torch.testing.assert_close(found, torch.tensor(stats.binom.pmf(range(6), 5, p)))


def test_gaussian_entropy_is_the_textbooks():
    u = Gaussian(2, precision=4.0)
    found = float(unit.entropy(u, torch.tensor([3.0, -1.0])).detach())
    assert found == pytest.approx(2 * 0.5 * math.log(2 * math.pi * math.e / 4), abs=1e-6)


def test_entropy_does_not_cancel_at_large_fields():
    u = Gaussian(1)
    found = float(unit.entropy(u, torch.tensor([1e4])).detach())
    assert found == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-6)


@pytest.mark.parametrize("z", [-1e6, -1e4, -1e3, -200.0, -40.0, -1.0, 0.0, 40.0, 1e3])
def test_relu_moments_far_in_both_tails(z):
    """Against the asymptotic series of Mills' ratio, or the plain Gaussian."""
    u = ReLU(1).double()
    found = u.conditional(torch.tensor([z], dtype=torch.float64))
    mean, second = float(found["bias"].detach()), -2 * float(found["log_precision"].detach())
    if z <= -40:
        a = -z
        assert mean == pytest.approx((1 - 2 / a**2 + 10 / a**4 - 74 / a**6) / a, rel=1e-9, abs=0)
        assert second == pytest.approx(
            (2 - 10 / a**2 + 74 / a**4 - 706 / a**6) / a**2, rel=1e-7, abs=0
        )
    else:
        truth = stats.truncnorm(-z, math.inf, loc=z)
        assert mean == pytest.approx(truth.mean(), rel=1e-9, abs=0)
        assert second == pytest.approx(truth.var() + truth.mean() ** 2, rel=1e-8, abs=0)


def test_fits_smooth_constant_columns():
    rows = 10
    ones = {"bias": torch.ones(1)}
    assert float(Bernoulli(1).domain.natural(ones, rows)["bias"]) == pytest.approx(
        math.log(10.5 / 0.5)
    )
    fitted = Gaussian(1, sigma0=0.5).domain.natural(
        {"bias": torch.tensor([2.0]), "log_precision": torch.tensor([-2.0])}, rows
    )
    assert float(fitted["log_precision"]) == pytest.approx(-math.log(0.25))
    assert float(fitted["bias"]) == pytest.approx(8.0)


@pytest.mark.parametrize("layer", [Gaussian(1, sigma0=0.0), ReLU(1, sigma0=0.0)])
def test_a_constant_column_is_refused_where_sigma0_is_0(layer):
    zero = {"bias": torch.zeros(1), "log_precision": torch.zeros(1)}
    with pytest.raises(DataError, match="sigma0 = 0"):
        layer.domain.natural(zero, 10)


@pytest.mark.parametrize("family", [Bernoulli, Spin, Gaussian, ReLU, Binomial])
@pytest.mark.parametrize("size", [0, -1, True])
def test_a_layer_has_a_whole_positive_size(family, size):
    with pytest.raises(DataError, match="whole number of at least 1"):
        family(size)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Softmax(0, 3), "Softmax blocks"),
        (lambda: Softmax(2, 0), "categories"),
        (lambda: Binomial(2, 0), "trials"),
        (lambda: Gaussian(2, precision=0.0), "precision"),
        (lambda: Gaussian(2, precision=float("nan")), "precision"),
        (lambda: Gaussian(2, sigma0=-1.0), "sigma0"),
        (lambda: ReLU(2, precision=-1.0), "precision"),
        (lambda: ReLU(2, sigma0=float("nan")), "sigma0"),
        (lambda: Mixed([]), "at least one member"),
        (lambda: families.from_spec({"kind": "Potts", "size": 3}), "no units called 'Potts'"),
        (lambda: families.from_spec({"kind": "Bernoulli", "sizes": 3}), "do not fit"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(make, words):
    with pytest.raises(GibbsianError, match=words) as caught:
        make()
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("layer", "row", "advice"),
    [
        (Bernoulli(2), [0.0, 255.0], "scale"),
        (Spin(2), [0.0, 1.0], "spin"),
        (ReLU(2), [-0.5, 1.0], "scale"),
        (Binomial(2, 3), [1.0, 2.5], "trials"),
        (Softmax(1, 2), [1.0, 1.0], "one-hot"),
        (Mixed([Gaussian(1), Spin(1)]), [0.3, 0.3], "Columns 1 to 1"),
    ],
)
def test_values_outside_the_domain_are_refused_with_advice(layer, row, advice):
    with pytest.raises(DataError, match=advice):
        unit.check(layer, torch.tensor([row]))


def test_bernoulli_accepts_rates_as_data_and_turns_them_into_bits(generator):
    layer = Mixed([Bernoulli(2), Gaussian(1)])
    x = torch.tensor([0.25, 0.75, 0.5]).repeat(4000, 1)
    unit.check(layer, x)
    s = unit.states(layer, x, generator)
    assert set(s[:, :2].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(s[:, 2], x[:, 2])
    z = (s[:, :2].mean(dim=0) - x[0, :2]) / (0.1875 / 4000) ** 0.5
    assert float(z.abs().max()) < 4


def test_tail_precisions():
    layer = Mixed([Bernoulli(1), Gaussian(1, precision=4.0), Softmax(1, 2), ReLU(1, precision=2.0)])
    inf = math.inf
    found = unit.tail_precision(layer)
    torch.testing.assert_close(found, torch.tensor([inf, 4.0, inf, inf, 2.0]))


def test_messages_name_the_shape():
    with pytest.raises(
        DataError, match=re.escape("have shape 2×4, but these units need rows of 3")
    ):
        unit.check(Bernoulli(3), torch.zeros(2, 4))


def test_samples_of_a_batch_of_any_shape():
    layer = LAYERS["mixed"]()
    s = layer.sample(torch.zeros(2, 3, layer.size), Generator().manual_seed(0))
    assert s.shape == (2, 3, layer.size)
