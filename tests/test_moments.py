"""Sums of statistics that wait to be carried out: what they are added up to."""

import pytest
import torch
from torch import Generator, Tensor

import gibbsian as gb
from gibbsian.moments import Moments, combined, shares


def found(rows: int, seed: int) -> Moments:
    """Mean statistics of random states of one machine, all alike for one seed."""
    g = Generator().manual_seed(seed)
    state = [torch.randint(0, 2, (rows, n), generator=g).float() for n in (4, 3)]
    return MACHINE.terms(state, 1).sums(shares(rows, None, state[0]))


MACHINE = gb.rbm(4, 3).requires_grad_(False)
MACHINE.joints[0].weight.normal_(generator=Generator().manual_seed(0))


def difference(name: str) -> Tensor:
    return 0.25 * found(5, 1)[name] + 0.75 * found(8, 2)[name] - found(6, 3)[name]


@pytest.mark.parametrize("read", [(), (1,), (0, 1, 2)])
def test_moments_add_up_whether_or_not_some_were_read(read: tuple[int, ...]) -> None:
    parts = [(0.25, found(5, 1)), (0.75, found(8, 2)), (-1.0, found(6, 3))]
    name = "connections.0.weight"
    for i in read:
        assert parts[i][1][name].shape == (4, 3)
    total = combined(parts)
    assert (total.rows(name) is None) == bool(read)
    for k in parts[0][1]:
        torch.testing.assert_close(total[k], difference(k))


def test_a_sum_that_waits_goes_straight_into_a_tensor() -> None:
    rows = combined([(0.25, found(5, 1)), (0.75, found(8, 2)), (-1.0, found(6, 3))]).rows(
        "connections.0.weight"
    )
    assert rows is not None
    assert len(rows.a) == len(rows.b) == len(rows.w) == 19
    p = torch.ones(4, 3)
    rows.add_to(p, -2.0)
    torch.testing.assert_close(p, 1 - 2 * difference("connections.0.weight"))
