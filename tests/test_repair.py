"""Denoising and inpainting against machines whose answer is known."""

import pytest
import torch

import gibbsian as gb
from gibbsian import repair
from gibbsian.samplers.base import sample


def copier() -> gb.BoltzmannMachine:
    """A machine whose four visible bits are copies of one hidden bit."""
    machine = gb.rbm(4, 1)
    with torch.no_grad():
        machine.joints[0].weight.fill_(12.0)
        machine.layers[0].bias.fill_(-6.0)
        machine.layers[1].bias.fill_(-24.0)
    return machine


ROWS = torch.tensor([[0.0] * 4, [1.0] * 4]).repeat(50, 1)


def test_denoising_votes_with_the_majority() -> None:
    damaged = torch.tensor([[1.0, 1, 1, 0], [0, 0, 1, 0]])
    out = repair.reconstruct(copier(), damaged)
    assert torch.allclose(out, torch.tensor([[1.0] * 4, [0.0] * 4]), atol=0.02)
    found = repair.denoise(copier(), ROWS, 0.1, torch.Generator().manual_seed(0))
    assert found.before == pytest.approx(0.1, abs=0.04)
    assert found.after < found.before


def test_a_deep_machine_repairs_rows_and_tells_them_apart() -> None:
    """Copies of one bit, which the first hidden layer hears from below, the second from the first."""
    machine = gb.dbm(6, (1, 1))
    with torch.no_grad():
        machine.joints[0].weight.fill_(4.0)
        machine.joints[1].weight.fill_(8.0)
        for layer, bias in zip(machine.layers, (-2.0, -16.0, -4.0), strict=True):
            layer.bias.fill_(bias)
    rows = torch.tensor([[0.0] * 6, [1.0] * 6]).repeat(50, 1)
    assert float((repair.reconstruct(machine, rows) - rows).abs().max()) < 0.2
    found = repair.denoise(machine, rows, 0.15, torch.Generator().manual_seed(0))
    assert found.after < 0.5 * found.before


def test_no_flips_change_nothing_and_all_flips_turn_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    assert repair.denoise(copier(), ROWS, 0.0, generator).before == 0
    assert torch.equal(repair.denoise(copier(), ROWS, 1.0, generator).damaged, 1 - ROWS)
    spins = gb.rbm(gb.Spin(4), 2)
    assert torch.equal(repair.denoise(spins, 2 * ROWS - 1, 1.0, generator).damaged, 1 - 2 * ROWS)


def test_blocks_are_damaged_and_repaired_whole() -> None:
    machine = gb.rbm(gb.Softmax(5, 3), 2)
    x = torch.nn.functional.one_hot(torch.zeros(400, 5, dtype=torch.long), 3).float().flatten(1)
    found = repair.denoise(machine, x, 0.6, torch.Generator().manual_seed(0))
    machine.check(found.damaged)
    moved = (found.damaged != x).unflatten(1, (5, 3)).any(dim=2).float().mean()
    assert float(moved) == pytest.approx(0.6 * 2 / 3, abs=0.04)  # noise is the old value once in 3
    marked = torch.tensor([False, True, False, False, True])
    hidden = repair.blocks_of(machine, marked)
    assert hidden.unflatten(0, (5, 3)).all(dim=1).tolist() == marked.tolist()
    assert hidden.sum() == 6
    filled = repair.inpaint(machine, x, hidden, torch.Generator().manual_seed(0), 20, 10)
    assert torch.allclose(filled.repaired.unflatten(1, (5, 3)).sum(dim=2), torch.ones(400, 5))
    assert torch.equal(filled.repaired[:, ~hidden], x[:, ~hidden])


@pytest.mark.parametrize(("steps", "average"), [(1, 50), (7, 50), (60, 50), (3, 3)])
def test_inpainting_takes_as_many_steps_as_it_is_asked_for(steps, average, monkeypatch) -> None:
    taken = []

    def counted(machine, n, steps, **more):
        taken.append(steps)
        return sample(machine, n, steps, **more)

    monkeypatch.setattr(repair, "sample", counted)
    hidden = torch.tensor([False, False, False, True])
    repair.inpaint(copier(), ROWS, hidden, torch.Generator().manual_seed(1), steps, average)
    assert sum(taken) == steps


def test_inpainting_finds_hidden_bits_and_holds_the_others() -> None:
    hidden = torch.tensor([False, False, False, True])
    found = repair.inpaint(copier(), ROWS, hidden, torch.Generator().manual_seed(1), 100, 20)
    assert torch.equal(found.repaired[:, :3], ROWS[:, :3])
    assert found.after < 0.01 < found.before


def test_inpainting_agrees_with_the_exact_conditional() -> None:
    machine = gb.rbm(3, 2)
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(2))
    machine.joints[0].weight.data.copy_(2 * weight)
    row = torch.tensor([[1.0, 0.0, 1.0]])
    rows = (torch.tensor([[1.0, 0.0, b]]) for b in (0.0, 1.0))
    both = torch.stack([-machine.free_energy(r).detach() for r in rows])
    exact = float(torch.softmax(both, dim=0)[1])
    mask = torch.tensor([False, False, True])
    found = repair.inpaint(
        machine, row.repeat(4000, 1), mask, torch.Generator().manual_seed(3), 60, 20
    )
    means = found.repaired[:, 2]
    error = 4 * float(means.std()) / len(means) ** 0.5
    assert abs(float(means.mean()) - exact) < error + 1e-6


def test_hidden_pixels_marks_rows_and_columns() -> None:
    mask = repair.hidden_pixels((4, 5), slice(1, 3), None).reshape(4, 5)
    assert mask[1:3].all()
    assert not mask[0].any()
    colour = repair.hidden_pixels((3, 4, 5), None, slice(0, 2)).reshape(3, 4, 5)
    assert colour[:, :, :2].all()
    assert not colour[:, :, 2:].any()
    last = repair.hidden_pixels((4, 5, 3), slice(0, 1), None).reshape(4, 5, 3)
    assert last[0].all()
    assert not last[1:].any()


@pytest.mark.parametrize(
    "call",
    [
        lambda: repair.hidden_pixels(None, slice(0, 1), None),
        lambda: repair.hidden_pixels((4, 5), slice(9, 12), None),
        lambda: repair.hidden_pixels((4, 5), slice(0, 4), None),
        lambda: repair.denoise(copier(), ROWS, 1.5, None),
        lambda: repair.inpaint(copier(), ROWS, torch.zeros(4, dtype=torch.bool), None),
        lambda: repair.inpaint(copier(), ROWS, torch.tensor([True, False] * 2), None, steps=0),
        lambda: repair.blocks_of(copier(), torch.zeros(5, dtype=torch.bool)),
    ],
)
def test_impossible_requests_get_a_sentence(call) -> None:
    with pytest.raises(gb.GibbsianError):
        call()
