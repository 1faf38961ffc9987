"""What every connection is held against."""

import torch
from torch import Generator, Tensor

from gibbsian.connections import Connection
from gibbsian.testing.near import near
from gibbsian.testing.perturbed import perturbed


def check_connection(connection: Connection, seed: int = 0) -> None:
    """Hold a connection against its definition: a bilinear form in a, b and the weight.

    ⟨up(a), b⟩ = ⟨a, down(b)⟩; `statistics` is the weighted mean of ∂⟨a, c b⟩/∂weight (the
    vector-Jacobian product by autograd); a stand-in weight is used where given; any batch shape.

    Parameters
    ----------
    connection : Connection
        It is not changed; its weight is perturbed.
    seed : int
        Seed of the weight and of the vectors.

    Raises
    ------
    AssertionError
        If one of these does not hold.
    """
    c = perturbed(connection, seed=seed)
    generator = Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    a, b = draw(5, c.lower), draw(5, c.upper)
    with torch.no_grad():
        w = c.weight.clone()
        up, down = c.up(a), c.down(b)
        assert up.shape == b.shape and down.shape == a.shape, "up or down has another shape"
        assert bool((up != 0).any()), "the weight was perturbed, and up(a) is 0"
        near((up * b).sum(-1), (a * down).sum(-1), "adjointness")
        near(c.up(a, w), up, "up with a stand-in weight")
        near(c.down(b, w), down, "down with a stand-in weight")
        near(c.up(a, 2 * w), 2 * up, "up in twice the weight")
        near(c.up(a[0]), up[0], "up of one row")
        near(c.down(b[0]), down[0], "down of one row")
        nested = draw(2, 3, c.lower), draw(2, 3, c.upper)
        flat = nested[0].reshape(6, -1), nested[1].reshape(6, -1)
        near(c.up(nested[0]).reshape(6, -1), c.up(flat[0]), "up of another shape")
        near(c.down(nested[1]).reshape(6, -1), c.down(flat[1]), "down of another shape")
        near(c.up(a + flat[0][:5]), up + c.up(flat[0][:5]), "up of a sum")
    weights = torch.rand(5, generator=generator).double()
    _check_statistics(c, a, b, weights / weights.sum())


def _check_statistics(c: Connection, a: Tensor, b: Tensor, weights: Tensor) -> None:
    """Compare `statistics` with autograd, with and without weights."""
    w = c.weight.detach().clone().requires_grad_()
    uniform = torch.full_like(weights, 1 / len(weights))
    for given, used in ((None, uniform), (weights, weights)):
        form = (used * (c.up(a, w) * b).sum(-1)).sum()
        (truth,) = torch.autograd.grad(form, w)
        with torch.no_grad():
            found = c.statistics(a, b, given)
        assert found.shape == w.shape, "statistics have another shape than the weight"
        near(found, truth, "statistics")
