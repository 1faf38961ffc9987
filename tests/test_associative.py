"""The associative memory against what is known of it: descent, stored patterns, cycles, capacity."""

import itertools
import math

import numpy as np
import pytest
import torch

import gibbsian as gb
from gibbsian import plots
from gibbsian.associative import RULES, AssociativeMemory, as_machine, capacity, overlap
from gibbsian.associative.memory import FIXED_POINT, LIMIT, TWO_CYCLE


def random_spins(rows: int, n: int, seed: int) -> torch.Tensor:
    drawn = torch.randint(0, 2, (rows, n), generator=torch.Generator().manual_seed(seed))
    return (2 * drawn - 1).double()


def largest_rise(memory: AssociativeMemory, seed: int) -> float:
    """The largest rise of E at any single update, from random states."""
    s, rise = random_spins(20, memory.size, seed), -math.inf
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        for i in torch.randperm(memory.size, generator=generator).tolist():
            before = memory.energy(s)
            s[:, i] = memory.updated(s, i)
            rise = max(rise, float((memory.energy(s) - before).max()))
    return rise


@pytest.mark.parametrize("rule", [AssociativeMemory.hebbian, AssociativeMemory.pseudo_inverse])
def test_energy_never_rises_one_spin_at_a_time(rule) -> None:
    theta = 0.3 * torch.randn(40, generator=torch.Generator().manual_seed(3))
    memory = rule(random_spins(12, 40, 1), theta)
    assert largest_rise(memory, 2) < 1e-12
    energies = memory.recall(random_spins(30, 40, 4), 5).energies
    assert float(energies.diff(dim=0).max()) < 1e-12


def test_energy_rises_where_couplings_are_not_symmetric() -> None:
    memory = AssociativeMemory.hebbian(random_spins(12, 40, 1))
    memory.couplings = memory.couplings.triu()
    assert largest_rise(memory, 2) > 0.01


def test_energy_is_the_double_sum() -> None:
    theta = torch.tensor([0.5, -1.0, 0.25, 0.0])
    memory = AssociativeMemory.hebbian(random_spins(3, 4, 7), theta)
    for s in itertools.product((-1.0, 1.0), repeat=4):
        pairs = itertools.combinations(range(4), 2)
        by_hand = -sum(float(memory.couplings[i, j]) * s[i] * s[j] for i, j in pairs)
        by_hand += sum(float(t) * x for t, x in zip(theta, s, strict=True))
        assert float(memory.energy([list(s)])) == pytest.approx(by_hand)


def test_recall_ends_in_minima_and_every_minimum_holds() -> None:
    """Against all states of a small memory, ties included."""
    memory = AssociativeMemory.hebbian(random_spins(3, 9, 8))
    states = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=9)), dtype=torch.float64)
    fields = states @ memory.couplings
    holds = (fields * states >= -1e-12).all(dim=1)
    found = memory.recall(states, 1)
    assert set(found.outcomes) == {FIXED_POINT}
    assert torch.equal(memory.recall(states[holds], 2).states, states[holds])
    ends = found.states @ memory.couplings
    assert bool((ends * found.states >= -1e-12).all())
    assert not bool(holds.all())


def test_hebb_completes_a_damaged_pattern() -> None:
    patterns = random_spins(5, 200, 9)
    cues = patterns.clone()
    cues[:, :30] *= -1
    for synchronous in (False, True):
        found = AssociativeMemory.hebbian(patterns).recall(cues, 1, synchronous)
        assert torch.equal(found.states, patterns)
        assert set(found.outcomes) == {FIXED_POINT}


@pytest.mark.parametrize("count", [1, 10, 29, 39])
def test_pseudo_inverse_holds_independent_patterns_exactly(count) -> None:
    patterns = random_spins(count, 40, 10)
    assert int(torch.linalg.matrix_rank(patterns)) == count
    memory = AssociativeMemory.pseudo_inverse(patterns)
    for synchronous in (False, True):
        found = memory.recall(patterns, 0, synchronous)
        assert torch.equal(found.states, patterns)
        assert len(found.energies) == 2  # one sweep found that nothing changes


def test_hebb_does_not_hold_so_many() -> None:
    """The wrong rule fails where the pseudo-inverse must not."""
    patterns = random_spins(29, 40, 10)
    assert not torch.equal(AssociativeMemory.hebbian(patterns).recall(patterns, 0).states, patterns)


def test_dependent_patterns_are_stored_by_the_moore_penrose_inverse_with_a_word() -> None:
    patterns = random_spins(6, 30, 11)
    patterns = torch.cat([patterns, -patterns[:2]])
    with pytest.warns(gb.GibbsianWarning, match=r"dependent \(rank 6\).*Moore–Penrose"):
        memory = AssociativeMemory.pseudo_inverse(patterns)
    exact = torch.linalg.pinv(patterns) @ patterns
    assert torch.allclose(memory.couplings, exact.fill_diagonal_(0), atol=1e-12)
    assert torch.equal(memory.recall(patterns, 0).states, patterns)


def test_synchronous_recall_finds_and_names_two_cycles() -> None:
    """Two spins that copy each other trade their values for ever, all at once."""
    memory = AssociativeMemory([[0.0, 1.0], [1.0, 0.0]])
    cues = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    found = memory.recall(cues, synchronous=True)
    assert found.outcomes == (TWO_CYCLE, FIXED_POINT)
    assert torch.equal(found.states[0], -found.before[0])
    assert torch.equal(found.states[1], cues[1])
    assert set(memory.recall(cues, 1).outcomes) == {FIXED_POINT}


def test_symmetric_memories_end_in_fixed_points_or_two_cycles_only() -> None:
    patterns = random_spins(20, 40, 12)
    found = AssociativeMemory.hebbian(patterns).recall(random_spins(200, 40, 13), synchronous=True)
    assert set(found.outcomes) == {FIXED_POINT, TWO_CYCLE}
    again = AssociativeMemory.hebbian(patterns).recall(found.before, synchronous=True, limit=1)
    assert torch.equal(again.states, found.states)
    # A ring that passes values on is not symmetric, and turns with a period of 3: nobody's two-cycle.
    ring = AssociativeMemory(torch.zeros(3, 3))
    ring.couplings = torch.eye(3, dtype=torch.float64).roll(1, 0)
    assert ring.recall([[1.0, -1, -1]], synchronous=True, limit=50).outcomes == (LIMIT,)


def test_limit_is_named() -> None:
    memory = AssociativeMemory.hebbian(random_spins(20, 60, 14))
    assert LIMIT in memory.recall(random_spins(40, 60, 15), 0, limit=1).outcomes


def test_orders_come_from_the_generator() -> None:
    memory = AssociativeMemory.hebbian(random_spins(20, 60, 14))
    cues = random_spins(40, 60, 15)
    one, same, other = (memory.recall(cues, seed).states for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_thresholds_move_the_signs() -> None:
    memory = AssociativeMemory(torch.zeros(3, 3), [2.0, -2.0, 0.0])
    assert memory.recall([[1.0, -1, -1]], 0).states.tolist() == [[-1.0, 1.0, -1.0]]


# --- the same energy as a Boltzmann machine ------------------------------------------------------


def differences(machine: gb.BoltzmannMachine, memory: AssociativeMemory) -> torch.Tensor:
    s = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=memory.size)), dtype=torch.float64)
    return machine.free_energy(s).detach() - memory.energy(s)


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_machine_has_the_energy_of_hebb(beta) -> None:
    patterns = random_spins(3, 8, 16)
    memory = AssociativeMemory.hebbian(patterns)
    machine = as_machine(patterns, beta)
    memory.couplings = beta * memory.couplings
    apart = differences(machine, memory)
    # The diagonal of W, which the memory leaves out, and one Gaussian integral a pattern.
    constant = -3 * (beta / 2 + math.log(2 * math.pi) / 2)
    assert torch.allclose(apart, torch.full_like(apart, constant), atol=1e-12)


def test_a_hopfield_machine_of_the_library_reads_as_hebb() -> None:
    patterns = random_spins(3, 8, 16)
    machine = gb.hopfield(gb.Spin(8), 3).double()
    machine.joints[0].weight.data.copy_(patterns.T / 8**0.5)
    s = random_spins(50, 8, 17)
    squares = -0.5 * ((s @ machine.joints[0].weight) ** 2).sum(dim=1)
    apart = squares.detach() - AssociativeMemory.hebbian(patterns).energy(s)
    assert torch.allclose(apart, torch.full_like(apart, -1.5), atol=1e-12)
    machine.joints[0].weight.data.copy_(patterns.T / 8)  # the wrong scale
    assert float(differences(machine, AssociativeMemory.hebbian(patterns)).std()) > 0.1


# --- capacity ------------------------------------------------------------------------------------


def test_hebb_loses_its_patterns_beyond_the_critical_load() -> None:
    below, above = capacity([0.08, 0.25], size=150, trials=6, probes=10, generator=1)
    assert below.patterns == 12
    assert below.load == pytest.approx(0.08)
    assert below.overlap - 4 * below.standard_error > 0.95
    assert above.overlap + 4 * above.standard_error < 0.85


def test_pseudo_inverse_goes_beyond_hebb() -> None:
    low, high = capacity([0.25, 0.9], "pseudo-inverse", size=100, trials=4, probes=10, flip=0.08)
    assert low.overlap - 4 * low.standard_error > 0.97
    assert high.overlap < low.overlap
    assert capacity([0.9], "pseudo-inverse", size=60, trials=2)[0].overlap == 1.0


def test_chart_of_capacity(tmp_path) -> None:
    found = {rule: capacity([0.1, 0.3, 1.1], rule, size=20, trials=2) for rule in RULES}
    figure = plots.capacity({rule: [p.point for p in f] for rule, f in found.items()})
    assert len(figure.axes[0].lines) == 4  # two rules, two critical loads
    cue = plots.capacity({"a": [(0.1, 0.5, 0.01)]}, flip=0.15).axes[0].lines[-1]
    assert set(cue.get_ydata()) == {0.7}
    assert cue.get_label() == "the cue itself, 0.7"
    assert plots.save(figure, tmp_path / "capacity.png").stat().st_size > 5000
    with pytest.raises(gb.GibbsianError):
        plots.capacity({})
    for flip in (0.6, -0.1, "0.1", float("nan")):
        with pytest.raises(gb.GibbsianError, match="flipped spins"):
            plots.capacity({"a": [(0.1, 0.5, 0.01)]}, flip=flip)


# --- bad input -----------------------------------------------------------------------------------

MEMORY = AssociativeMemory.hebbian(np.array([[1, -1, 1]]))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: AssociativeMemory.hebbian([[1, 0, 1]]), "2x − 1"),
        (lambda: AssociativeMemory.hebbian([[1, float("nan"), 1]]), "−1 and \\+1"),
        (lambda: AssociativeMemory.pseudo_inverse([[0.5, 1]]), "0.5"),
        (lambda: AssociativeMemory.hebbian(np.empty((0, 4))), "at least one row"),
        (lambda: AssociativeMemory.hebbian([]), "at least one row"),
        (lambda: AssociativeMemory.hebbian("xyz"), "rows of −1 and"),
        (lambda: AssociativeMemory([[0, 1], [2, 0]]), "symmetric"),
        (lambda: AssociativeMemory([[1, 0], [0, 1]]), "zero diagonal"),
        (lambda: AssociativeMemory([[0, 1, 0]]), "square"),
        (lambda: AssociativeMemory([[0, float("inf")], [float("inf"), 0]]), "infinite"),
        (lambda: AssociativeMemory(np.zeros((2, 2)), [1.0]), "2 thresholds"),
        (lambda: MEMORY.recall([[1, -1]]), "2 spins and the memory 3"),
        (lambda: MEMORY.recall([[1, -1, 0]]), "hold 0"),
        (lambda: MEMORY.recall([[1, -1, 1]], limit=0), "at least 1"),
        (lambda: MEMORY.recall([[1, -1, 1]], generator=-1), "seed"),
        (lambda: overlap([[1, -1]], [[1, -1, 1]]), "differ in shape"),
        (lambda: as_machine([[1, -1]], beta=0), "positive"),
        (lambda: capacity([0.1], "hebb"), "known are hebbian, pseudo-inverse"),
        (lambda: capacity([]), "at least one"),
        (lambda: capacity([-0.1]), "positive"),
        (lambda: capacity(0.1), "list of numbers of patterns per spin"),
        (lambda: capacity(None), "list of numbers of patterns per spin"),
        (lambda: capacity(torch.tensor(0.1)), "list of numbers of patterns per spin"),
        (lambda: capacity("0.1"), "A load must be a finite number"),
        (lambda: capacity([0.1], flip=0.7), "0 to 0.5"),
        (lambda: capacity([0.1], trials=1), "trials"),
    ],
)
def test_impossible_requests_get_a_sentence(call, word) -> None:
    with pytest.raises(gb.GibbsianError, match=word) as told:
        call()
    assert str(told.value).endswith(".")
    assert "\n" not in str(told.value)
