"""Machines with unbounded units on both sides stay normalisable."""

import pytest
import torch

import gibbsian as gb
from gibbsian.proper import MARGIN, Keeper


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
    direction = wild.joints[0].weight / machine(2.0).joints[0].weight
    assert float(direction.std()) < 1e-6


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
