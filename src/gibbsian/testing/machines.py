"""What every machine is held against: energies, log Z and gradients by enumeration."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from gibbsian.machine import BoltzmannMachine, Clamp, State
from gibbsian.moments import Moments
from gibbsian.testing.near import near
from gibbsian.testing.perturbed import perturbed
from gibbsian.testing.tables import Grid, Table, enumerate_states, tabulate
from gibbsian.units import base as unit


def check_machine(machine: BoltzmannMachine, seed: int = 0) -> None:
    """Hold a small machine against every check of `MACHINE_CHECKS`.

    Parameters
    ----------
    machine : BoltzmannMachine
        Proper, with few enough units to list all states (three real units at most); used as it is.
    seed : int
        Seed of the states and clamps.

    Raises
    ------
    AssertionError
        If an energy, log Z or a gradient differs from enumeration.
    """
    table = enumerate_states(machine)
    for check in MACHINE_CHECKS:
        check(machine, table, seed)


def noise_state(machine: BoltzmannMachine, rows: int, seed: int) -> State:
    """Draw valid states of all layers that carry no information."""
    generator = Generator().manual_seed(seed)
    like = next(machine.parameters())
    return tuple(u.domain.noise(rows, generator).to(like) for u in machine.layers)


def check_energies(machine: BoltzmannMachine, table: Table, seed: int = 0) -> None:
    """E(s) = Σ e(s) − Σ ⟨s, c s⟩ term by term; float32 agrees; energies are sums over units."""
    m = perturbed(machine, scale=0.0)
    state = noise_state(m, 7, seed)
    with torch.no_grad():
        total = sum(unit.energy(u, s) for u, s in zip(m.layers, state, strict=True))
        for i, c in enumerate(m.joints):
            total = total - torch.einsum("ri,ri->r", state[i], c.down(state[i + 1]))
        near(m.energy(state), total, "E(s)")
        narrow = perturbed(machine, scale=0.0).float()
        found = narrow.energy([s.float() for s in state])
    assert found.dtype == torch.float64, "energies are summed in float64"
    near(found, total, "E(s) in float32", rtol=1e-5, atol=1e-5)


def check_marginal_energy(machine: BoltzmannMachine, table: Table, seed: int = 0) -> None:
    """The marginal energy of either parity is −log Σ exp(−E), with units held or not.

    Summed once more over the other parity it gives log Z.
    """
    m = perturbed(machine, scale=0.0)
    state = noise_state(m, 3, seed)
    for summed in (0, 1):
        with torch.no_grad():
            found = m.marginal_energy(state, summed)
            for clamps in (None, _some_clamps(m, summed, state, seed)):
                value = m.marginal_energy(state, summed, clamps)
                for row in range(3):
                    truth = _marginal(m, state, row, summed, clamps)
                    held = "" if clamps is None else " with held units"
                    near(float(value[row]), truth, f"marginal energy{held}", 1e-6, 1e-6)
            fields = m.fields(summed, state)
            near(m.marginal_energy(state, summed, fields=fields), found, "F from given fields")
            kept = tabulate(m, [_kept(table, i, summed) for i in range(len(m.layers))])
            logits = kept.log_weights - m.marginal_energy(kept.states, summed)
        near(float(logits.logsumexp(dim=0)), table.log_z, f"log Z, parity {summed}", 1e-6, 1e-6)
    if len(m.layers) == 2:
        with torch.no_grad():
            near(m.free_energy(state[0]), found, "free energy")


def _some_clamps(
    machine: BoltzmannMachine, parity: int, state: State, seed: int
) -> dict[int, Clamp]:
    """Hold the first block of each layer of a parity at another valid value."""
    other = noise_state(machine, 1, seed + 1)
    out = {}
    for i in machine.parity(parity):
        mask = torch.zeros(machine.sizes[i], dtype=torch.bool)
        mask[: machine.layers[i].domain.widths[0]] = True
        out[i] = Clamp(mask, other[i][0])
    return out


def _marginal(
    machine: BoltzmannMachine,
    state: State,
    row: int,
    summed: int,
    clamps: dict[int, Clamp] | None,
) -> float:
    """Return −log Σ exp(−E) over the summed layers by listing their states."""
    held = {
        i: Clamp(torch.ones(machine.sizes[i], dtype=torch.bool), state[i][row])
        for i in machine.parity(1 - summed)
    }
    # Nodes are placed anew: given the other layers, real units lie elsewhere than in the marginal.
    return -enumerate_states(machine, held | (clamps or {})).log_z


def _kept(table: Table, layer: int, summed: int) -> list[Grid]:
    """Return a layer's blocks; one arbitrary value each for a layer that is summed out."""
    grids = table.grids[layer]
    if layer % 2 != summed:
        return list(grids)
    return [Grid(g.values[:1], torch.zeros(1).double()) for g in grids]


def check_gradient(machine: BoltzmannMachine, table: Table, seed: int = 0) -> None:
    """`gradient` is autograd's and finite differences' of ⟨E⟩_positive − ⟨E⟩_negative."""
    m = perturbed(machine, scale=0.0)
    positive, negative = noise_state(m, 4, seed), noise_state(m, 6, seed + 1)
    w = torch.rand(4, generator=Generator().manual_seed(seed)).double() + 0.1

    def gap() -> Tensor:
        return (w / w.sum() * m.energy(positive)).sum() - m.energy(negative).mean()

    with torch.no_grad():
        found = m.gradient(m.mean_statistics(positive, None, w), m.mean_statistics(negative, None))
    _compare(m, found, gap)


def check_likelihood_gradient(machine: BoltzmannMachine, table: Table, seed: int = 0) -> None:
    """With exact averages, `gradient` is that of −log p(x), and averaging a parity changes nothing."""
    m = perturbed(machine, scale=0.0)
    x = noise_state(m, 3, seed)[0]
    posteriors = [posterior(m, row) for row in x]

    def loss() -> Tensor:
        data = [(t.log_weights - m.energy(t.states)).logsumexp(dim=0) for t in posteriors]
        return (table.log_weights - m.energy(table.states)).logsumexp(dim=0) - sum(data) / len(data)

    with torch.no_grad():
        near(float(loss()), negative_log_likelihood(m, x, table), "−log p", 1e-6, 1e-6)
        positive = mean_statistics(
            m, [t.states for t in posteriors], [t.probabilities for t in posteriors]
        )
        if len(m.layers) == 2:
            closed = m.mean_statistics((x,), 1)
            for k, t in closed.items():
                near(t, positive[k], f"data statistics of {k}", 1e-6, 1e-6)
        for averaged in (None, 0, 1):
            negative = m.mean_statistics(table.states, averaged, table.probabilities)
            found = m.gradient(positive, negative)
            with torch.enable_grad():
                _compare(m, found, loss)


def negative_log_likelihood(
    machine: BoltzmannMachine, x: Tensor, table: Table | None = None
) -> float:
    """Return the mean of −log p(x) over rows, in nats, by enumeration."""
    table = enumerate_states(machine) if table is None else table
    return table.log_z - sum(posterior(machine, row).log_z for row in x) / len(x)


def posterior(machine: BoltzmannMachine, row: Tensor) -> Table:
    """List the states of a machine whose visible layer is held at `row`, (n,)."""
    held = {0: Clamp(torch.ones(len(row), dtype=torch.bool), row)}
    return enumerate_states(machine, held)


def mean_statistics(
    machine: BoltzmannMachine, states: list[State], weights: list[Tensor]
) -> Moments:
    """Return mean statistics over several tables, each of the same weight."""
    joined = tuple(torch.cat(layers) for layers in zip(*states, strict=True))
    return machine.mean_statistics(joined, None, torch.cat(weights))


def _compare(
    machine: BoltzmannMachine, found: dict[str, Tensor], loss: Callable[[], Tensor]
) -> None:
    """Compare a gradient with autograd of `loss`, and along one direction with differences."""
    named = {k: p for k, p in machine.named_parameters() if p.requires_grad}
    assert set(found) == set(named), "the gradient does not cover the learned parameters"
    slopes = torch.autograd.grad(loss(), list(named.values()))
    generator = Generator().manual_seed(1)
    slope = 0.0
    directions = {}
    for (k, p), truth in zip(named.items(), slopes, strict=True):
        near(found[k], truth, f"gradient of {k}", 1e-6, 1e-6)
        directions[k] = torch.randn(p.shape, generator=generator).double()
        slope += float((directions[k] * found[k]).sum())
    values = []
    with torch.no_grad():
        for sign in (1e-5, -2e-5, 1e-5):
            for k, p in named.items():
                p.add_(directions[k], alpha=sign)
            values.append(float(loss()))
    near((values[0] - values[1]) / 2e-5, slope, "finite differences", 1e-4, 1e-5)


MACHINE_CHECKS: tuple[Callable[[BoltzmannMachine, Table, int], None], ...] = (
    check_energies,
    check_marginal_energy,
    check_gradient,
    check_likelihood_gradient,
)
