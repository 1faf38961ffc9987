"""Rows without the noise that their transform added: the jump of walk-jump sampling."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

import gibbsian as gb
from gibbsian import data as datasets
from gibbsian import recipes
from gibbsian.data import Transform
from gibbsian.errors import DataError, GibbsianError


def machine(sigma: float) -> gb.BoltzmannMachine:
    """A Gaussian machine whose rows are a mixture of normal ones, wider than the noise."""
    torch.manual_seed(3)
    found = gb.gaussian_rbm(gb.Gaussian(3, sigma0=sigma), 4).double()
    with torch.no_grad():
        for p in found.parameters():
            p.copy_(torch.randn_like(p) * 0.7)
        found.layers[0].log_precision.copy_(
            torch.tensor([-0.4, 0.3, 0.9]) - 2 * math.log(sigma) - 1
        )
    return found


def mixture(found: gb.BoltzmannMachine, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the responsibilities of all hidden states for each row, and the centre of each."""
    hidden = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=v.dtype)] * 4)
    gamma = found.layers[0].log_precision.exp()
    centres = (found.layers[0].bias + found.field(0, (v, hidden))) / gamma
    # log p(h) from summing v out, then that of v given h.
    log_p = hidden @ found.layers[1].bias + 0.5 * (gamma * centres**2).sum(1)
    log_p = log_p - 0.5 * (gamma * (v[:, None] - centres) ** 2).sum(-1)
    return log_p.softmax(dim=1), centres


@torch.no_grad()
def test_jump_is_the_exact_mean_of_clean_rows():
    sigma = 0.8
    found = machine(sigma)
    v = torch.randn(50, 3, dtype=torch.float64) * 2
    # x given its component is normal of variance 1/γ − σ²; v = x + σε.
    share, centres = mixture(found, v)
    kept = 1 - sigma**2 * found.layers[0].log_precision.exp()
    exact = (share[..., None] * (centres + kept * (v[:, None] - centres))).sum(1)
    torch.testing.assert_close(gb.remove_noise(found, v, sigma), exact)
    # The twin that takes σ for σ² is far off.
    wrong = gb.remove_noise(found, v, math.sqrt(sigma))
    assert (wrong - exact).abs().mean() > 0.05


@torch.no_grad()
def test_jump_is_tweedies_formula():
    """v + σ² ∇ log p(v), by automatic differentiation of the free energy, for each column's own noise."""
    found, sigma = machine(0.5), torch.tensor([0.1, 0.0, 0.5], dtype=torch.float64)
    v = torch.randn(20, 3, dtype=torch.float64)
    with torch.enable_grad():
        leaf = v.clone().requires_grad_()
        free = found.marginal_energy((leaf, torch.zeros(20, 4, dtype=torch.float64))).sum()
        (slope,) = torch.autograd.grad(free, leaf)
    torch.testing.assert_close(gb.remove_noise(found, v, sigma), v - sigma**2 * slope)


@torch.no_grad()
def test_jump_comes_nearer_to_clean_rows_and_is_right_on_average():
    """The mean of E[x | v] over samples v is that of x, and its error is below the noise."""
    sigma = 0.8
    found, generator = machine(sigma), Generator().manual_seed(1)
    hidden_share, centres = mixture(found, torch.zeros(1, 3, dtype=torch.float64))
    gamma = found.layers[0].log_precision.exp()
    # p(h) itself: responsibilities for v = 0 without the density of v = 0 given h.
    prior = hidden_share[0].log() + 0.5 * (gamma * centres**2).sum(1)
    which = torch.multinomial(prior.softmax(0), 20_000, replacement=True, generator=generator)
    e = torch.randn(2, 20_000, 3, generator=generator, dtype=torch.float64)
    x = centres[which] + (1 / gamma - sigma**2).sqrt() * e[0]
    v = x + sigma * e[1]
    jump = gb.remove_noise(found, v, sigma)
    error = (jump - x).square().mean(0)
    assert (error < 0.9 * sigma**2).all()
    off = (jump - x).mean(0) / ((jump - x).std(0) / math.sqrt(len(x)))
    assert off.abs().max() < 4
    # The best there is: scaling the jump's step makes the error larger.
    for twin in (0.7, 1.3):
        assert ((v + twin * (jump - v) - x).square().mean(0) > error).all()


def test_machines_narrower_than_the_noise_do_not_jump_too_far():
    found = gb.gaussian_rbm(2, 2)
    with torch.no_grad():
        found.layers[0].log_precision.fill_(math.log(100.0))
        found.joints[0].weight.zero_()
        found.layers[0].bias.zero_()
    assert torch.equal(gb.remove_noise(found, torch.ones(1, 2), 0.5), torch.zeros(1, 2))


def test_only_real_columns_lose_noise():
    found = gb.rbm(gb.Mixed([gb.Bernoulli(2), gb.Gaussian(2)]), 3)
    rows = torch.tensor([[1.0, 0.0, 0.3, -2.0]])
    out = gb.remove_noise(found, rows, 0.5)
    assert torch.equal(out[:, :2], rows[:, :2])
    assert (out[:, 2:] != rows[:, 2:]).all()
    bits = gb.rbm(3, 2)
    assert torch.equal(gb.remove_noise(bits, torch.ones(1, 3), 0.5), torch.ones(1, 3))


def test_deep_machines_use_mean_field():
    deep = gb.dbm(gb.Gaussian(3), [4, 2])
    out = gb.remove_noise(deep, torch.randn(5, 3), 0.3)
    assert out.shape == (5, 3)
    assert torch.isfinite(out).all()


def test_bad_noise_is_told():
    found = gb.gaussian_rbm(3, 2)
    with pytest.raises(GibbsianError, match="does not know the noise"):
        gb.remove_noise(found, torch.zeros(2, 3))
    with pytest.raises(GibbsianError, match="a number or 3 of them"):
        gb.remove_noise(found, torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(GibbsianError, match="a number or 3 of them"):
        gb.remove_noise(found, torch.zeros(2, 3), "much")
    with pytest.raises(DataError, match="standard deviation"):
        gb.remove_noise(found, torch.zeros(2, 3), -1.0)
    with pytest.raises(DataError, match="standard deviation"):
        gb.remove_noise(found, torch.zeros(2, 3), math.nan)
    with pytest.raises(DataError):
        gb.remove_noise(found, torch.zeros(2, 4), 0.5)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["standardise", "dequantise:0.5"], [0.5, 0.5]),
        (["dequantise:3", "standardise"], [3 / 5, 3 / 10]),
        (["dequantise:3", "dequantise:4"], [5.0, 5.0]),
        (["standardise"], [0.0, 0.0]),
    ],
)
def test_transforms_tell_their_noise(steps, expected):
    rows = torch.tensor([[0.0, 10.0], [10.0, -10.0]]).repeat(500, 1)
    found = datasets.load(rows.numpy(), transform=steps).transform
    # Standardised after noise, the standard deviation is that of the noisy rows.
    if steps[-1] == "standardise" and len(steps) > 1:
        assert found.noise.tolist() == pytest.approx(
            [3 / math.hypot(5, 3), 3 / math.hypot(10, 3)], rel=0.1
        )
    else:
        assert found.noise.tolist() == pytest.approx(expected)
    again = Transform.from_state(found.state())
    assert torch.equal(again.noise, found.noise)


def test_the_noise_told_is_the_noise_made():
    rows = np.random.default_rng(0).normal(0, [1.0, 7.0], (20_000, 2)).astype(np.float32)
    found = datasets.load(rows, transform=["dequantise:2", "standardise", "dequantise:0.3"])
    raw, generator = found.train.raw(list(range(len(found.train)))), Generator().manual_seed(5)
    made = (found.transform(raw, generator) - found.transform(raw, generator)) / math.sqrt(2)
    error = found.transform.noise / math.sqrt(2 * len(raw))
    assert ((made.std(0) - found.transform.noise).abs() < 4 * error).all()


def test_bits_and_blocks_have_no_noise():
    images = np.random.default_rng(0).integers(0, 255, (50, 4), dtype=np.uint8)
    assert not datasets.load(images, transform=["dequantise:9", "threshold"]).transform.noise.any()
    assert not datasets.load(images, transform="stochastic-binarise").transform.noise.any()
    table = np.stack([np.arange(40) % 3, np.random.default_rng(1).normal(size=40)], axis=1)
    noisy = datasets.load(table, transform=["one-hot:0", "dequantise:0.2"]).transform
    assert noisy.noise.tolist() == pytest.approx([0, 0, 0, 0.2])
    first = datasets.load(table, transform=["dequantise:0.2"]).transform
    assert first.noise.tolist() == pytest.approx([0.2, 0.2])


def test_rows_without_noise():
    rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    found = datasets.load(rows, transform=["standardise", "dequantise:0.5"])
    quiet, noisy = (found.train.tensor(limit=20, noisy=noise) for noise in (False, True))
    assert torch.allclose(
        found.transform.inverse(quiet), found.train.raw(list(range(20))), atol=1e-5
    )
    assert 0.3 < float((noisy - quiet).std()) < 0.7


def test_recipes_bound_precisions_by_the_noise():
    digits = recipes.load_data(recipes.find("gaussian-rbm"), "digits")
    found = recipes.build("gaussian-rbm", digits, 10)
    noise = float(digits.transform.noise[0])
    assert noise > 0
    assert found.layers[0].config["sigma0"] == pytest.approx(noise)
    plain = datasets.load("digits", transform="standardise-global")
    assert recipes.build("gaussian-rbm", plain, 10).layers[0].config["sigma0"] == 0.05
