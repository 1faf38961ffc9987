"""Connections against the bilinear form they stand for; wrong ones must fail."""

import pytest
import torch

from gibbsian import testing
from gibbsian.connections import Connection, Dense, Scaled


@pytest.mark.parametrize(
    "connection",
    [Dense(3, 5), Dense(1, 4), Scaled(Dense(4, 2), 0.3), Scaled(Scaled(Dense(2, 3), 2.0), -0.7)],
    ids=["dense", "one-unit", "scaled", "scaled-twice"],
)
def test_conformance(connection):
    testing.check_connection(connection, seed=4)


class WrongDown(Dense):
    """A field down that is not the transpose."""

    def down(self, b, weight=None):
        return 2 * super().down(b, weight)


class Summed(Dense):
    """Statistics summed over the batch, not averaged."""

    def statistics(self, a, b, weights=None):
        return super().statistics(a, b, weights) * (len(a) if weights is None else 1)


class Unweighted(Dense):
    """Statistics that ignore sample weights."""

    def statistics(self, a, b, weights=None):
        return super().statistics(a, b)


class Affine(Dense):
    """A field that is not linear."""

    def up(self, a, weight=None):
        return super().up(a, weight) + 1.0


class Deaf(Dense):
    """A stand-in weight that is not used."""

    def up(self, a, weight=None):
        return super().up(a)


@pytest.mark.parametrize("wrong", [WrongDown, Summed, Unweighted, Affine, Deaf])
def test_a_wrong_connection_fails(wrong):
    with pytest.raises(AssertionError):
        testing.check_connection(wrong(3, 4), seed=4)


def test_scaled_shares_storage_and_scales_the_field():
    dense = Dense(2, 3)
    scaled = Scaled(dense, 0.5)
    with torch.no_grad():
        dense.weight.fill_(2.0)
    a = torch.ones(1, 2)
    torch.testing.assert_close(scaled.up(a), torch.full((1, 3), 2.0))
    torch.testing.assert_close(scaled.weight, torch.ones(2, 3))
    scaled.factor = 0.0
    assert not bool(scaled.up(a).any())


def test_a_connection_is_abstract():
    with pytest.raises(TypeError):
        Connection()  # type: ignore[abstract]
