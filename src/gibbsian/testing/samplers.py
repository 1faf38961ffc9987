"""What every sampler is held against: the machine's distribution, listed state by state."""

import torch
from torch import Generator, Tensor

from gibbsian.machine import BoltzmannMachine, Clamps, State
from gibbsian.samplers import ChainState, Sampler, run, start
from gibbsian.testing.agreement import ALPHA, Agreement, marginal_cdf
from gibbsian.testing.near import near
from gibbsian.testing.tables import Table, enumerate_states
from gibbsian.units import base as unit

# Joint histograms beyond this many cells are replaced by those of single blocks and moments.
_MAX_CELLS = 20_000


def check_sampler(
    sampler: Sampler,
    machine: BoltzmannMachine,
    *,
    chains: int = 10_000,
    steps: int = 40,
    begin: str | Tensor = "noise",
    clamps: Clamps | None = None,
    truth: BoltzmannMachine | None = None,
    seed: int = 0,
) -> float:
    """Hold a sampler against the rules of its interface and against enumeration.

    See `check_contract` and `check_distribution`, which take the same arguments.
    """
    check_contract(sampler, machine, clamps=clamps, seed=seed)
    return check_distribution(
        sampler, machine, chains=chains, steps=steps, begin=begin, clamps=clamps,
        truth=truth, seed=seed,
    )  # fmt: skip


def check_contract(
    sampler: Sampler, machine: BoltzmannMachine, *, clamps: Clamps | None = None, seed: int = 0
) -> None:
    """Hold a sampler against the rules of its interface.

    States have one valid tensor a layer; held units are held from the start on; a step leaves the
    state that it was given unchanged, returns the fields on the odd layers, draws from the
    generator alone, and repeats with the seed.

    Raises
    ------
    AssertionError
        If a rule is broken.
    """
    before = torch.get_rng_state()
    like = next(machine.parameters())

    def walk(seed: int) -> ChainState:
        generator = Generator().manual_seed(seed)
        visible = machine.layers[0].domain.noise(9, generator).to(like)
        state = sampler.init(machine, visible, generator, clamps)
        _check_state(machine, state, clamps)
        for _ in range(3):
            copies = [s.clone() for s in state.layers]
            after, info = sampler.step(machine, state, generator, clamps)
            for old, copied in zip(state.layers, copies, strict=True):
                assert torch.equal(old, copied), "a step changes the state that it was given"
            _check_state(machine, after, clamps)
            with torch.no_grad():
                fields = machine.fields(1, after.layers)
            assert set(info.fields) == set(fields), "Info lacks the fields on the odd layers"
            for i, f in fields.items():
                near(info.fields[i], f, f"Info's field on layer {i}", 1e-4, 1e-4)
            state = after
        return state

    one, two, other = walk(seed), walk(seed), walk(seed + 1)
    assert all(torch.equal(a, b) for a, b in zip(one.layers, two.layers, strict=True)), (
        "a seed does not fix the chains"
    )
    assert any(not torch.equal(a, b) for a, b in zip(one.layers, other.layers, strict=True)), (
        "another seed gives the same chains"
    )
    assert torch.equal(before, torch.get_rng_state()), "the global generator was used"


def _check_state(machine: BoltzmannMachine, state: ChainState, clamps: Clamps | None) -> None:
    like = next(machine.parameters())
    assert len(state.layers) == len(machine.layers), "a state has one tensor a layer"
    for i, (u, s) in enumerate(zip(machine.layers, state.layers, strict=True)):
        unit.check(u, s, f"layer {i} of the state")
        assert s.dtype == like.dtype and not s.requires_grad
        if clamps and i in clamps:
            assert torch.equal(clamps[i].apply(s), s), f"layer {i} does not stay where it is held"


def check_distribution(
    sampler: Sampler,
    machine: BoltzmannMachine,
    *,
    chains: int = 10_000,
    steps: int = 40,
    begin: str | Tensor = "noise",
    clamps: Clamps | None = None,
    truth: BoltzmannMachine | None = None,
    seed: int = 0,
    alpha: float = ALPHA,
) -> float:
    """Compare the final states of independent chains with the machine's distribution.

    Finite units: a chi-square test of the joint histogram over all layers (of every block, where
    there are too many cells). Real units: Kolmogorov–Smirnov tests of each column's marginal. All:
    normal scores of the means of every sufficient statistic and of all products of two columns.

    Parameters
    ----------
    sampler : Sampler
    machine : BoltzmannMachine
        A small machine that the sampler mixes on within `steps` steps.
    chains, steps : int
        Number of independent chains, and steps of each.
    begin : str or Tensor
        Where chains start: see `gibbsian.samplers.start`.
    clamps : mapping of int to Clamp, optional
        Held units, with masks and values of shape (n,); the truth is the conditional distribution.
    truth : BoltzmannMachine, optional
        The machine to compare with, `machine` unless given. Another one must make the check fail.
    seed : int
        Seed of the chains.
    alpha : float
        Probability of a false alarm.

    Returns
    -------
    float
        The corrected probability of the worst difference under the truth.

    Raises
    ------
    AssertionError
        If it is below `alpha`.
    """
    generator = Generator().manual_seed(seed)
    visible = start(machine, chains, begin, generator)
    with torch.no_grad():
        state = sampler.init(machine, visible, generator, clamps)
    state, _ = run(sampler, machine, state, steps, generator, clamps)
    table = enumerate_states(truth or machine, clamps)
    agreement = Agreement(alpha)
    compare_states(agreement, truth or machine, table, state.layers)
    return agreement.require(f"{type(sampler).__name__} after {steps} steps")


def compare_states(
    agreement: Agreement, machine: BoltzmannMachine, table: Table, state: State
) -> None:
    """Compare independent states with a table: histograms, marginals and moments."""
    index = _compare_blocks(agreement, table, state)
    finite = list(index)
    cells = 1
    for block in finite:
        cells *= table.shape[block]
    if len(finite) > 1 and cells <= _MAX_CELLS:
        shape = [table.shape[b] for b in finite]
        joint = torch.zeros_like(index[finite[0]])
        for b in finite:
            joint = joint * table.shape[b] + index[b]
        counts = torch.bincount(joint, minlength=cells)
        others = [b for b in range(len(table.shape)) if b not in finite]
        p = table.probabilities.reshape(table.shape)
        p = p.sum(dim=others) if others else p
        assert list(p.shape) == shape
        agreement.histogram("joint states", counts, p.flatten())
    _compare_moments(agreement, machine, table, state)


def _compare_blocks(agreement: Agreement, table: Table, state: State) -> dict[int, Tensor]:
    """Compare each block's marginal; return the index of the value that each chain has."""
    index: dict[int, Tensor] = {}
    block = 0
    for i, (grids, s) in enumerate(zip(table.grids, state, strict=True)):
        first = 0
        for g in grids:
            width = g.values.shape[1]
            part = s[:, first : first + width].double()
            name = f"layer {i}, columns {first} to {first + width - 1}"
            if g.real:
                agreement.distribution(name, part[:, 0], marginal_cdf(table, block))
            else:
                hits = (part[:, None] - g.values).abs().amax(dim=-1) < 1e-6
                assert bool(hits.any(dim=1).all()), f"{name}: a state is not in the table of values"
                index[block] = hits.int().argmax(dim=1)
                counts = torch.bincount(index[block], minlength=len(g.values))
                agreement.histogram(name, counts, table.log_marginal(block).softmax(dim=0))
            first, block = first + width, block + 1
    return index


def _compare_moments(
    agreement: Agreement, machine: BoltzmannMachine, table: Table, state: State
) -> None:
    """Compare the means of all sufficient statistics and of all products of two columns."""
    with torch.no_grad():
        for i, u in enumerate(machine.layers):
            truth = u.statistics(table.states[i])
            for k, t in u.statistics(state[i].double()).items():
                _moments(agreement, f"layer {i} {k}", t, table, truth[k])
    whole, listed = torch.cat(state, dim=1).double(), torch.cat(table.states, dim=1)
    a, b = torch.triu_indices(whole.shape[1], whole.shape[1], offset=1)
    _moments(agreement, "products", whole[:, a] * whole[:, b], table, listed[:, a] * listed[:, b])


def _moments(agreement: Agreement, name: str, found: Tensor, table: Table, listed: Tensor) -> None:
    mean = table.mean(listed)
    agreement.moments(name, found, mean, table.mean(listed**2) - mean**2)
