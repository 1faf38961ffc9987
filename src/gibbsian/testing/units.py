"""What every family of units is held against."""

import copy
import json
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from gibbsian import units as families
from gibbsian.errors import DataError
from gibbsian.path import fit_units
from gibbsian.testing.agreement import Agreement, legendre_cdf
from gibbsian.testing.laws import Law, expected, laws
from gibbsian.testing.near import near
from gibbsian.testing.perturbed import perturbed
from gibbsian.testing.tables import lower_end
from gibbsian.units import base as unit
from gibbsian.units.base import Units

_DRAWS = 20_000
_EXTREME = 1e4


def _fields(units: Units, seed: int, rows: int = 4) -> Tensor:
    generator = Generator().manual_seed(seed + 1)
    f = 1.5 * torch.randn(rows, units.size, generator=generator).double()
    f[0] = 0.0
    return f


def check_log_partition(units: Units, seed: int = 0) -> None:
    """Γ(f) = log Σ_s exp(f·s − e(s)) block by block, standing in the block's first column."""
    u, batch = perturbed(units, seed=seed), _fields(units, seed)
    with torch.no_grad():
        terms = u.log_partition(batch)
        assert terms.shape == batch.shape, "log_partition changes the shape"
        for f, row in zip(batch, terms, strict=True):
            for law in laws(u, f):
                found = row[law.part]
                near(float(found[0]), law.log_z, f"Γ of columns {law.part}")
                assert not bool(found[1:].any()), "a block's Γ stands in its first column only"
        nested = u.log_partition(batch.reshape(2, 2, -1))
    near(nested.reshape(terms.shape), terms, "Γ of a batch of another shape")


def check_energy(units: Units, seed: int = 0) -> None:
    """e(s) = −Σ_k η_k T_k(s), for any batch shape, summed in float64."""
    u = perturbed(units, seed=seed)
    s = u.domain.noise(6, Generator().manual_seed(seed)).double()
    parameters = unit.natural(u)
    with torch.no_grad():
        statistics = u.statistics(s)
        total = -torch.stack([(parameters[k] * t).sum(dim=-1) for k, t in statistics.items()]).sum(
            dim=0
        )
        near(unit.energy(u, s), total, "e(s)")
        near(unit.energy(u, s.reshape(2, 3, -1)), total.reshape(2, 3), "e(s) of another shape")
        single = copy.deepcopy(u).float()
        assert unit.energy(single, s.float()).dtype == torch.float64, "energies sum in float64"
    assert set(statistics) == set(u.conditional(s)), "statistics and conditional differ in names"
    learned = {k for k, _ in u.named_parameters()}
    assert learned <= set(statistics), "a parameter has no sufficient statistic of its name"


def check_mean(units: Units, seed: int = 0) -> None:
    """E[s | f] equals enumeration, autograd's ∂Γ/∂f, and finite differences of Γ."""
    u, batch = perturbed(units, seed=seed), _fields(units, seed)
    f = batch.clone().requires_grad_()
    (slope,) = torch.autograd.grad(u.log_partition(f).sum(), f)
    with torch.no_grad():
        mean = unit.mean(u, batch)
        near(mean, slope, "mean against autograd of Γ")
        for row, m in zip(batch, mean, strict=True):
            truth = expected(u, laws(u, row), lambda s: s)
            near(m, truth, "mean")
        step = 1e-5 * torch.randn(batch.shape, generator=Generator().manual_seed(seed)).double()
        rise = (u.log_partition(batch + step) - u.log_partition(batch - step)).sum(dim=-1)
        near(rise, 2 * (step * mean).sum(dim=-1), "differences of Γ", rtol=1e-5, atol=1e-9)


def check_conditional(units: Units, seed: int = 0) -> None:
    """E[T_k | f] equals enumeration, and autograd's ∂Γ/∂η_k for every parameter."""
    u, batch = perturbed(units, seed=seed), _fields(units, seed)
    named = dict(u.named_parameters())
    for f in batch:
        with torch.no_grad():
            found, truth = u.conditional(f), laws(u, f)
            for k, value in found.items():
                mean = expected(u, truth, lambda s, k=k: u.statistics(s)[k])
                near(value, mean, f"E[{k}]")
        for p in named.values():
            p.requires_grad_()
        slopes = torch.autograd.grad(u.log_partition(f).sum(), list(named.values()))
        for (k, p), slope in zip(named.items(), slopes, strict=True):
            # A parameter log_x stands for x, and ∂Γ/∂log x = x ∂Γ/∂x.
            value = found[k] * p.detach().exp() if unit.is_log(k) else found[k]
            near(value, slope, f"E[{k}] against autograd of Γ")


def check_entropy(units: Units, seed: int = 0) -> None:
    """The entropy equals −Σ p log p (−∫ p log p for real units)."""
    u, batch = perturbed(units, seed=seed), _fields(units, seed)
    with torch.no_grad():
        found = unit.entropy(u, batch)
        truth = [sum(law.entropy for law in laws(u, f)) for f in batch]
    near(found, torch.tensor(truth).double(), "entropy")


def check_samples(units: Units, seed: int = 0) -> None:
    """Draws have the law of each block, the mean statistics, and are independent of each other."""
    u, f = perturbed(units, seed=seed), _fields(units, seed)[1]
    generator = Generator().manual_seed(seed)
    batch = f.expand(_DRAWS, -1)
    before = f.clone()
    s = u.sample(batch, generator)
    assert torch.equal(f, before), "sample changes its field"
    unit.check(u, s, "samples")
    agreement = Agreement()
    with torch.no_grad():
        truth = laws(u, f)
        for law in truth:
            _compare(agreement, law, s)
        for k, t in u.statistics(s).items():
            mean = expected(u, truth, lambda x, k=k: u.statistics(x)[k])
            square = expected(u, truth, lambda x, k=k: u.statistics(x)[k] ** 2)
            agreement.moments(k, t, mean, square - mean**2)
        mean = expected(u, truth, lambda x: x)
        variance = expected(u, truth, lambda x: x * x) - mean**2
    centred = s - mean
    # Rows two by two, and columns of neighbouring blocks, are uncorrelated.
    pairs = centred[0::2] * centred[1::2]
    agreement.moments("products of two draws", pairs, torch.zeros_like(mean), variance**2)
    firsts = [law.part.start for law in truth]
    if len(firsts) > 1:
        a, b = firsts[:-1], firsts[1:]
        product, spread = centred[:, a] * centred[:, b], variance[a] * variance[b]
        agreement.moments("products of two columns", product, torch.zeros(len(a)), spread)
    agreement.require(f"samples of {type(units).__name__}")


def _compare(agreement: Agreement, law: Law, s: Tensor) -> None:
    """Compare the draws of one block with its law."""
    name = f"columns {law.part.start} to {law.part.stop - 1}"
    part = law.rows[:, law.part]
    if not law.finite:
        cdf = legendre_cdf(part[:, 0].numpy(), law.probabilities.numpy())
        agreement.distribution(name, s[:, law.part.start], cdf)
        return
    hits = (s[:, None, law.part] == part).all(dim=-1)
    assert bool(hits.any(dim=1).all()), f"{name}: a sample is not in the table of values"
    agreement.histogram(name, hits.sum(dim=0), law.probabilities)


def check_domain(units: Units, seed: int = 0) -> None:
    """The domain accepts noise and samples, and refuses everything else in one sentence."""
    domain = units.domain
    noise = domain.noise(50, Generator().manual_seed(seed))
    assert noise.shape == (50, units.size) and noise.is_floating_point()
    unit.check(units, noise, "noise")
    assert sum(domain.widths) == units.size == domain.size, "the blocks do not cover the layer"
    bad = [
        noise[:, :-1], noise[:0], noise[0], torch.cat([noise, noise], dim=1),
        _changed(noise, 0, torch.nan), _changed(noise, units.size - 1, torch.inf),
    ]  # fmt: skip
    first = 0
    for block, width in zip(domain.blocks(), domain.widths, strict=True):
        part = slice(first, first + width)
        if block is not None:
            bad.append(_changed(noise, first, float(block.max()) + 1))
            bad.append(_changed(noise, first, float(block.min()) - 1.5))
            assert len(block.unique(dim=0)) == len(block), "a value is listed twice"
        elif lower_end(units, first) == 0:
            bad.append(_changed(noise, first, -1e-3))
        if width > 1:
            bad += [_changed(noise, part, 0.0), _changed(noise, part, 1.0)]
        first += width
    for x in bad:
        sentence = _refusal(units, x)
        assert sentence.endswith(".") and "\n" not in sentence, f"not one sentence: {sentence!r}"


def _changed(rows: Tensor, column: int | slice, value: float) -> Tensor:
    out = rows.clone()
    out[0, column] = value
    return out


def _refusal(units: Units, x: Tensor) -> str:
    try:
        unit.check(units, x)
    except DataError as error:
        return str(error)
    raise AssertionError(f"{type(units).__name__} accepts {x[:1].tolist()}")


def check_fit(units: Units, seed: int = 0) -> None:
    """The units fitted to mean statistics have them; constant columns stay finite.

    Smoothing may pull finite units' means by one row's weight, and widen a real unit's second
    moment by sigma0².
    """
    u = perturbed(units, seed=seed)
    field = _fields(units, seed)[1]
    with torch.no_grad():
        mean = u.conditional(field)
    fitted = perturbed(units, seed=seed + 1)
    fit_units(fitted, mean, 10**9)
    widths = [getattr(leaf.domain, "sigma0", 0.0) for leaf in unit.leaves(u)]
    wide = max(widths) ** 2
    with torch.no_grad():
        found = fitted.conditional(torch.zeros_like(field))
    for k, target in mean.items():
        slack = wide if unit.is_log(k) else 0.0
        near(found[k], target, f"fitted E[{k}]", rtol=1e-6, atol=1e-6 + slack)
    constant = u.domain.noise(1, Generator().manual_seed(seed)).double()
    with torch.no_grad():
        rows = 1000
        once = {k: t[0] for k, t in u.statistics(constant).items()}
        natural = u.domain.natural(once, rows)
        assert all(bool(torch.isfinite(t).all()) for t in natural.values()), "a fit is not finite"
        fit_units(fitted, once, rows)
        close = unit.mean(fitted, torch.zeros_like(field))
    spans = [1.0 if b is None else float(b.max() - b.min()) for b in u.domain.blocks()]
    tolerance = max(spans) / rows + max(widths)
    near(close, constant[0], "mean fitted to a constant", rtol=0.0, atol=tolerance)


def check_spec(units: Units, seed: int = 0) -> None:
    """Plain values rebuild the layer, and its state goes in by name."""
    plain = json.loads(json.dumps(families.spec(units)))
    rebuilt = families.from_spec(plain).double()
    assert families.spec(rebuilt) == plain, "the description changes on the way"
    u = perturbed(units, seed=seed)
    rebuilt.load_state_dict(u.state_dict())
    f = _fields(units, seed)
    near(rebuilt.log_partition(f), u.log_partition(f), "Γ of the rebuilt layer")
    learned = [p.requires_grad for p in rebuilt.parameters()]
    assert learned == [p.requires_grad for p in units.parameters()], "what is learned changes"


def check_precision(units: Units, seed: int = 0) -> None:
    """float32 in gives float32 out, near the float64 answer."""
    wide = perturbed(units, seed=seed)
    narrow, f = copy.deepcopy(wide).float(), _fields(units, seed)
    with torch.no_grad():
        for dtype, u in ((torch.float32, narrow), (torch.float64, wide)):
            x = f.to(dtype)
            s = u.sample(x, Generator().manual_seed(seed))
            out = [u.log_partition(x), s, *u.conditional(x).values(), *u.statistics(s).values()]
            assert all(t.dtype == dtype for t in out), (
                f"a result of {dtype} input has another dtype"
            )
        a, b = narrow.log_partition(f.float()).double(), wide.log_partition(f)
        near(a, b, "Γ in float32", rtol=1e-5, atol=1e-5)
        a, b = unit.mean(narrow, f.float()).double(), unit.mean(wide, f)
        near(a, b, "mean in float32", rtol=1e-5, atol=1e-5)


def check_extremes(units: Units, seed: int = 0) -> None:
    """Fields of ±10⁴ give finite results, and valid samples."""
    wide = perturbed(units, seed=seed)
    for u in (wide, copy.deepcopy(wide).float()):
        f = torch.full((3, units.size), _EXTREME, dtype=next(u.parameters()).dtype)
        f[1] *= -1
        f[2, ::2] *= -1
        with torch.no_grad():
            s = u.sample(f, Generator().manual_seed(seed))
            out = {
                "Γ": u.log_partition(f),
                "entropy": unit.entropy(u, f),
                "energy": unit.energy(u, s),
            }
            for k, t in (out | u.conditional(f)).items():
                assert bool(torch.isfinite(t).all()), f"{k} is not finite at fields of 1e4"
        unit.check(u, s, "samples at fields of 1e4")


def check_randomness(units: Units, seed: int = 0) -> None:
    """Randomness comes from the generator alone, and samples carry no autograd graph."""
    u = perturbed(units, seed=seed)
    f = torch.zeros(64, units.size, dtype=torch.float64, requires_grad=True)
    before = torch.get_rng_state()
    for draw in (lambda g: u.sample(f, g), lambda g: u.domain.noise(64, g)):
        one, two, other = (draw(Generator().manual_seed(i)) for i in (seed, seed, seed + 1))
        assert torch.equal(one, two), "a seed does not fix the draws"
        assert not torch.equal(one, other), "another seed gives the same draws"
        assert not one.requires_grad, "draws carry a graph"
    assert torch.equal(before, torch.get_rng_state()), "the global generator was used"


UNIT_CHECKS: tuple[Callable[[Units, int], None], ...] = (
    check_log_partition,
    check_energy,
    check_mean,
    check_conditional,
    check_entropy,
    check_samples,
    check_domain,
    check_fit,
    check_spec,
    check_precision,
    check_extremes,
    check_randomness,
)


def check_units(units: Units, seed: int = 0) -> None:
    """Hold a layer of units against every check of `UNIT_CHECKS`.

    Parameters
    ----------
    units : Units
        A small layer (a handful of columns); it is not changed. Its parameters are perturbed, since
        defaults hide mistakes.
    seed : int
        Seed of parameters, fields and draws.

    Raises
    ------
    AssertionError
        If a closed form differs from enumeration or quadrature, draws do not have their law, or a
        rule of the interface is broken.
    """
    for check in UNIT_CHECKS:
        check(units, seed)
