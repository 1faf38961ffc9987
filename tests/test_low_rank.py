"""The low-rank start against enumeration: the shares of clusters before the first update."""

import copy
import functools

import pytest
import torch
from test_machine import small_machine
from torch import Generator, Tensor

import gibbsian as gb
from gibbsian import low_rank
from gibbsian.errors import TrainingError
from gibbsian.initialise import initialise
from gibbsian.training import Settings, Trainer
from gibbsian.units import Bernoulli, Gaussian, Softmax, Spin

N, SHARE = 12, 0.3


def _clusters(rows: int = 1500, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows about two opposite patterns, 0.3 of them about the first, and the pattern's signs."""
    generator = Generator().manual_seed(seed)
    pattern = torch.rand(N, generator=generator) < 0.5
    first = torch.rand(rows, 1, generator=generator) < SHARE
    flips = torch.rand(rows, N, generator=generator) < 0.1
    return ((pattern == first) != flips).float(), 2.0 * pattern - 1


def _side(x: Tensor, signs: Tensor) -> Tensor:
    return ((2 * x - 1) @ signs.to(x) > 0).double()


@functools.cache
def _started(weights: str):
    machine = gb.rbm(N, 5)
    initialise(machine, _clusters()[0], weights=weights, generator=Generator().manual_seed(1))
    return machine.double()


def _exact(machine) -> tuple[Tensor, Tensor]:
    """Return every visible state and its probability."""
    v = ((torch.arange(2**N)[:, None] >> torch.arange(N)) & 1).double()
    with torch.no_grad():
        free = machine.marginal_energy([v, v.new_zeros(len(v), machine.sizes[1])])
    return v, (-free).softmax(0)


def _off(weights: str) -> float:
    """Return how far the machine's share of a cluster is from the data's, in the data's standard errors."""
    x, signs = _clusters()
    v, p = _exact(_started(weights))
    share = float(_side(x, signs).mean())
    error = (share * (1 - share) / len(x)) ** 0.5
    return abs(float(p @ _side(v, signs)) - share) / error


def test_clusters_have_their_shares_before_the_first_update():
    assert _off("low-rank") < 3


@pytest.mark.parametrize("weights", ["normal", "pca"])
def test_other_starts_have_not(weights):
    """Wrong twins."""
    assert _off(weights) > 4


def test_means_are_the_datas_and_clusters_are_apart():
    x, signs = _clusters()
    v, p = _exact(_started("low-rank"))
    assert float((p @ v - x.double().mean(dim=0)).abs().max()) < 0.04
    count = (2 * v - 1) @ signs.double()
    between = p @ (count.abs() <= 2).double()  # a sixth of independent bits would lie here, or more
    assert float(between) < 2 * float(((2 * x - 1) @ signs).abs().le(2).double().mean()) + 0.01
    singular = torch.linalg.svdvals(_started("low-rank").joints[0].weight.detach())
    assert float(singular[2]) < 0.1 < float(singular[0])


@torch.no_grad()
@pytest.mark.parametrize("rank", [1, 2])
def test_draws_are_samples_of_the_machine(rank):
    x, machine = _clusters()[0], copy.deepcopy(_started("low-rank"))
    machine.joints[0].weight.add_(0.1 * torch.randn(N, 5, generator=Generator().manual_seed(3)))
    v, p = _exact(machine)
    assert _distance(low_rank.draw(machine, 700, x, Generator().manual_seed(2), rank), v, p) < 4
    machine.joints[0].weight.mul_(0.6)
    assert _distance(low_rank.draw(machine, 700, x, Generator().manual_seed(2), rank), v, p) > 6


def _distance(drawn: Tensor, v: Tensor, p: Tensor) -> float:
    """Return the largest difference of means and of pair products, in standard errors of twofold draws."""
    worst = 0.0
    for product in (lambda s: s, lambda s: s * s.roll(1, dims=1), lambda s: s * s.roll(3, dims=1)):
        mean = p @ product(v)
        error = (mean * (1 - mean) * 2 / len(drawn)).sqrt()
        worst = max(worst, float(((product(drawn).mean(dim=0) - mean).abs() / error).max()))
    return worst


@pytest.mark.parametrize("visible", [Spin(8), Softmax(4, 3), Gaussian(6)])
def test_other_units(visible):
    """Their cluster, by the sign of the first principal component, has its share among draws."""
    generator = Generator().manual_seed(0)
    kinds = visible.domain.noise(2, generator)
    rows = kinds[(torch.rand(600, generator=generator) < SHARE).long()]
    rows = torch.where(torch.rand(600, 1, generator=generator) < 0.1,
                       visible.domain.noise(600, generator), rows)  # fmt: skip
    rows = (
        rows + 0.5 * torch.randn(rows.shape, generator=generator)
        if isinstance(visible, Gaussian)
        else rows
    )
    machine = gb.rbm(visible, 12)
    initialise(machine, rows, weights="low-rank", generator=generator)
    drawn = low_rank.draw(machine, 400, rows, generator)
    way = kinds[1] - kinds[0]
    middle = (kinds.mean(dim=0) @ way).double()
    shares = [float((s.double() @ way.double() > middle).double().mean()) for s in (rows, drawn)]
    assert abs(shares[0] - shares[1]) < 5 * (SHARE * 0.7 * (1 / 600 + 2 / 400)) ** 0.5


def test_chains_of_a_training_start_there_and_it_repeats():
    x, signs = _clusters()
    first = []
    for weights in ("low-rank", "low-rank", "normal"):
        method = gb.PCD(chains=500)
        data, settings = (
            gb.data.load(x.numpy()),
            Settings(weights=weights, updates=2, batch_size=50),
        )
        trainer = Trainer(gb.rbm(N, 5), data, method, settings)
        assert method.start == "reference"
        first.append(trainer.chains.layers[0])
    assert torch.equal(first[0], first[1])
    shares = [float(_side(s, signs).mean()) for s in first]
    assert abs(shares[0] - SHARE) < 0.08
    assert abs(float(_apart(first[0], signs)) - float(_apart(x, signs))) < 0.06
    assert float(_apart(first[2], signs)) < float(_apart(x, signs)) - 0.2


def _apart(x: Tensor, signs: Tensor) -> Tensor:
    """Return the share of rows well on one side."""
    return (((2 * x - 1) @ signs.to(x)).abs() > N / 2).double().mean()


def test_what_cannot_start_so_is_refused_in_one_sentence():
    x, _ = _clusters(40)
    deep = small_machine(Bernoulli(N), Bernoulli(3), Bernoulli(2))
    both = small_machine(Gaussian(N), Gaussian(3))
    cases = [
        (deep, x, "two layers"), (gb.rbm(N, 3), x[:2], "more rows"), (both, x, "finitely many values"),
    ]  # fmt: skip
    for machine, rows, words in cases:
        with pytest.raises(TrainingError, match=words) as told:
            initialise(machine, rows, weights="low-rank")
        assert str(told.value).endswith(".") and "\n" not in str(told.value)
    with pytest.raises(TrainingError, match="1 to 3 directions"):
        low_rank.fit(gb.rbm(N, 3), x, 4)
