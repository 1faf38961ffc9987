"""Machines with unbounded units on both sides stay normalisable."""

import pytest
import torch

import gibbsian as gb
from gibbsian.proper import MARGIN, Keeper
from gibbsian.tails import Tails


def machine(scale: float) -> gb.BoltzmannMachine:
    made = gb.layered(gb.Gaussian(6, precision=4.0), gb.Gaussian(5, precision=0.5))
    weight = made.joints[0].weight
    torch.nn.init.normal_(weight, std=scale, generator=torch.Generator().manual_seed(0))
    return made


def test_norm_is_tracked_and_kept_below_the_margin() -> None:
    wild = machine(2.0)
    assert not wild.is_proper()
    keeper = Keeper(wild)
    assert keeper.keep()
    assert wild.is_proper()
    assert abs(wild.coupling_norm() - MARGIN) < 0.02


def test_a_proper_machine_is_left_alone() -> None:
    calm = machine(0.01)
    before = calm.joints[0].weight.detach().clone()
    assert not Keeper(calm).keep()
    assert torch.equal(calm.joints[0].weight, before)


def test_couplings_that_began_at_zero_are_watched_too() -> None:
    made = machine(0.0)
    keeper = Keeper(made)
    assert not keeper.keep()
    with torch.no_grad():
        made.joints[0].weight.copy_(machine(2.0).joints[0].weight)
    for _ in range(30):
        keeper.keep()
    assert made.is_proper()


def test_bounded_pairs_are_not_watched() -> None:
    assert not Keeper(gb.gaussian_rbm(4, 3)).needed
    assert Keeper(gb.relu_rbm(4, 3)).needed
    assert not Keeper(gb.hopfield(4, 3)).needed
    mixed = gb.layered(gb.Mixed([gb.Bernoulli(3), gb.Gaussian(2)]), gb.Gaussian(2))
    assert Keeper(mixed).needed


def pushed() -> gb.Trained:
    """Train on equal columns, for which the likelihood rises up to the border, in large steps."""
    rows = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(1, 6)
    return gb.train(
        gb.layered(gb.Gaussian(6), gb.Gaussian(3)), gb.data.load(rows, transform="identity"),
        gb.PCD(chains=50), updates=150, lr=0.2, progress=False,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::gibbsian.GibbsianWarning")
def test_training_pushes_against_the_border_and_stays_inside(monkeypatch) -> None:
    result = pushed()
    assert result.machine.coupling_norm() < 1
    assert result.last.coupling_norm() < 1
    assert result.last.coupling_norm() > 0.5
    # The twin: left alone, the same training crosses the border and diverges.
    monkeypatch.setattr(Keeper, "keep", lambda self: False)
    with pytest.raises(gb.TrainingError, match="finite"):
        pushed()


def opposed(size: float) -> gb.BoltzmannMachine:
    """Two rectified units that oppose each other: either alone is proper below 1, both together are not."""
    made = gb.layered(gb.Gaussian(1), gb.ReLU(2))
    with torch.no_grad():
        made.joints[0].weight.copy_(torch.tensor([[size, -size]]))
    return made


def test_rectified_units_that_oppose_each_other_do_not_add_up() -> None:
    assert opposed(0.9).coupling_norm() == pytest.approx(0.9)  # the spectral norm is 1.27
    assert opposed(0.9).is_proper() and not opposed(1.1).is_proper()
    # What the spectral norm would have refused: Z is finite, with two modes, which no machine has whose
    # spectral norm is below 1. Beyond the border the energy falls for ever.
    v = torch.linspace(-60, 60, 1_201)[:, None]
    for size in (0.9, 1.1):
        made = opposed(size)
        with torch.no_grad():
            made.layers[1].bias.fill_(3.0)
            free = made.free_energy(v)
        if size < 1:
            lowest = int(free.argmin())
            assert lowest not in (0, 1_200) and float(free[600] - free[lowest]) > 2
            assert float(free[0] - free[lowest]) > 100 and float(free[-1] - free[lowest]) > 100
        else:
            assert int(free.argmin()) in (0, 1_200)


def test_only_the_direction_that_is_too_large_is_taken_back() -> None:
    """The largest singular value comes down to the margin; the other directions stay what they were."""
    made = gb.layered(gb.Gaussian(6), gb.Gaussian(4))
    source = torch.Generator().manual_seed(1)
    left, _ = torch.linalg.qr(torch.randn(6, 4, generator=source))
    right, _ = torch.linalg.qr(torch.randn(4, 4, generator=source))
    with torch.no_grad():
        made.joints[0].weight.copy_(left @ torch.diag(torch.tensor([1.1, 0.5, 0.3, 0.1])) @ right.T)
    assert Keeper(made).keep()
    kept = left @ torch.diag(torch.tensor([MARGIN, 0.5, 0.3, 0.1])) @ right.T
    torch.testing.assert_close(made.joints[0].weight.detach(), kept, atol=1e-3, rtol=0)


def test_a_rectified_direction_is_taken_back_alone() -> None:
    made = opposed(0.5)
    with torch.no_grad():
        made.joints[0].weight[0, 0] = 1.1
    keeper = Keeper(made)
    assert keeper.keep()
    assert made.joints[0].weight.tolist()[0] == pytest.approx([MARGIN, -0.5], abs=1e-4)


def test_directions_that_come_up_later_are_found() -> None:
    """Each unit is a local maximum of its own: whatever was followed, the one that grows is caught."""
    made = gb.layered(gb.Gaussian(30), gb.ReLU(30))
    keeper = Keeper(made)
    with torch.no_grad():
        made.joints[0].weight.copy_(0.9 * torch.eye(30))
        keeper.keep()
        for unit in (3, 17, 29):
            for _ in range(60):
                made.joints[0].weight[unit, unit] += 0.002
                keeper.keep()
            assert 0.95 < float(made.joints[0].weight[unit, unit]) < 1
    assert made.is_proper()


def test_deep_machines_are_cut_between_neighbours() -> None:
    made = gb.layered(gb.Gaussian(5), gb.ReLU(4), gb.Gaussian(3))
    source = torch.Generator().manual_seed(2)
    for c in made.joints:
        torch.nn.init.normal_(c.weight, std=0.5, generator=source)
    with torch.no_grad():
        scale = 1.3 / made.coupling_norm()
        for c in made.joints:
            c.weight.mul_(scale)
    assert Keeper(made).keep()
    assert made.coupling_norm() < 0.995


def test_the_search_finds_what_many_more_starts_find() -> None:
    """`coupling_norm` searches from 32 starts: none of 4,000 others finds more, in any of ten machines."""
    for seed in range(10):
        made = gb.layered(gb.Gaussian(20), gb.ReLU(40))
        source = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(made.joints[0].weight, std=0.1, generator=source)
        more = Tails(made)
        with torch.no_grad():
            best = float(more.ascend(more.starts(4_000, seed=100 + seed), 200)[2].max())
        assert made.coupling_norm() == pytest.approx(best, rel=1e-4)


def test_the_vector_of_an_earlier_version_is_left() -> None:
    keeper = Keeper(machine(2.0))
    keeper.load_state_dict(torch.ones(6))
    assert keeper.keep()
