"""Moments: unbiased at any number of samples, and blind to nothing that matters."""

import pytest
import torch

import gibbsian as gb
from gibbsian.evaluators.moments import compare_moments

MIX = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))


def draw(n: int, seed: int, mix: torch.Tensor = MIX) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) @ mix


def test_equal_distributions_have_no_error_at_any_size() -> None:
    found = [compare_moments(draw(20, 2 * s), draw(400, 2 * s + 1)) for s in range(60)]
    for values in ([f.mean_error for f in found], [f.covariance_error for f in found]):
        x = torch.tensor(values)
        assert abs(float(x.mean())) < 4 * float(x.std()) / 60**0.5


def test_known_differences_are_found() -> None:
    shifted = compare_moments(draw(4000, 0) + 1.0, draw(4000, 1))
    expected = 6 / float((MIX.T @ MIX).trace())
    assert shifted.mean_error == pytest.approx(expected, rel=0.1)
    independent = torch.diag((MIX.T @ MIX).diagonal().sqrt())
    loose = compare_moments(draw(4000, 0, independent), draw(4000, 1))
    assert loose.covariance_error == pytest.approx(1.0, abs=0.1)
    assert abs(loose.mean_error) < 0.01


def test_wrong_estimator_would_punish_small_samples() -> None:
    """The plain squared difference is biased: the twin that must fail."""
    naive = []
    for s in range(30):
        a, b = draw(20, 2 * s), draw(400, 2 * s + 1)
        naive.append(float((a.mean(0) - b.mean(0)).square().sum() / b.var(0).sum()))
    x = torch.tensor(naive)
    assert float(x.mean()) > 4 * float(x.std()) / 30**0.5


def test_conditional_means_of_a_machine_have_its_covariances() -> None:
    machine = gb.rbm(5, 3)
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    machine.joints[0].weight.data.copy_(2 * weight)
    machine.layers[0].bias.data.copy_(-weight.sum(dim=1))  # symmetric: no unit is stuck
    machine.layers[1].bias.data.copy_(-weight.sum(dim=0))
    one = gb.sample(machine, 20_000, 50, generator=1)
    two = gb.sample(machine, 20_000, 50, generator=2).samples
    found = compare_moments(one.means, two)
    assert abs(found.mean_error) < 0.002
    assert abs(found.covariance_error) < 0.02


def test_pairs_within_a_block_are_left_out() -> None:
    x = draw(4000, 0)
    x = torch.cat([x, x[:, -1:]], dim=1)
    y = torch.cat([draw(4000, 1), torch.zeros(4000, 1)], dim=1)
    whole = compare_moments(x[:, 5:], y[:, 5:] + 0.0, widths=[2])
    assert whole.covariance_error == 0


def test_too_few_rows_get_a_sentence() -> None:
    with pytest.raises(gb.GibbsianError):
        compare_moments(draw(3, 0), draw(40, 1))
