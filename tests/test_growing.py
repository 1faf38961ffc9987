"""A machine that begins as a smaller one."""

import pytest
import torch

import gibbsian as gb
from gibbsian import evaluators, growing
from gibbsian.errors import TrainingError
from gibbsian.units import Spin


def _trained(tmp_path, hidden=6):
    data = gb.data.load("digits")
    return data, gb.train(
        gb.rbm(64, hidden), data, updates=200, seed=1, progress=False, out=tmp_path / "small"
    )


def _bound(machine, rows) -> float:
    return -float(evaluators.variational_free_energies(machine, rows).mean()) - float(
        evaluators.log_z(machine)
    )


def test_without_couplings_above_the_distribution_is_the_smaller_machines():
    torch.manual_seed(0)
    small, large = gb.rbm(5, 4), gb.dbm(5, [4, 3])
    for p in (*small.parameters(), *large.parameters()):
        torch.nn.init.normal_(p)
    with torch.no_grad():
        large.joints[1].weight.zero_()
    growing.grow(large, small)
    rows = torch.randint(2, (20, 5)).float()
    with torch.no_grad():
        exact = float(-small.free_energy(rows).mean()) - float(evaluators.log_z(small))
    assert _bound(large, rows) == pytest.approx(exact, abs=1e-4)


def test_the_field_of_the_layer_above_at_its_mean_is_taken_back():
    small, large = gb.rbm(5, 4), gb.dbm(5, [4, 3])
    with torch.no_grad():
        large.joints[1].weight.normal_()
        large.layers[2].bias.fill_(0.7)
    growing.grow(large, small)
    rest = torch.full((3,), torch.sigmoid(torch.tensor(0.7)).item())
    field = large.layers[1].bias + large.joints[1].down(rest)
    assert torch.allclose(field, small.layers[1].bias, atol=1e-6)


def test_training_begins_at_the_other_runs_machine(tmp_path):
    data, small = _trained(tmp_path)
    found = gb.train(
        gb.dbm(64, [6, 4]), data, updates=1, lr=1e-9, scale=0.0, seed=0, progress=False,
        begin=str(tmp_path / "small"), out=tmp_path / "large",
    )  # fmt: skip
    rows = data.test.tensor(generator=0)
    with torch.no_grad():
        exact = float(-small.machine.free_energy(rows).mean()) - float(
            evaluators.log_z(small.machine)
        )
    assert _bound(found.machine, rows) == pytest.approx(exact, abs=1e-3)
    assert _bound(gb.load(tmp_path / "large").machine, rows) == pytest.approx(exact, abs=1e-3)
    # Its chains begin at data, not at the reference, which a trained machine is far from.
    chains = found.chains.layers[0]
    distance = torch.cdist(chains, data.train.tensor(generator=0)).min(dim=1).values
    assert float(distance.square().mean()) < 12


def test_a_resumed_run_does_not_ask_for_the_smaller_one_again(tmp_path):
    import shutil

    data, _ = _trained(tmp_path)
    out = tmp_path / "large"
    given = {"updates": 12, "checkpoint_every": 4, "seed": 0, "progress": False}
    begin = str(tmp_path / "small")
    whole = gb.train(gb.dbm(64, [6, 4]), data, begin=begin, out=out, **given)
    shutil.rmtree(tmp_path / "small")
    again = gb.resume(out, progress=False, checkpoint=8)
    for a, b in zip(whole.machine.parameters(), again.machine.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_killed_before_its_first_checkpoint_still_begins_there(tmp_path):
    import shutil

    data, _ = _trained(tmp_path)
    given = {"updates": 3, "seed": 0, "progress": False, "begin": str(tmp_path / "small")}
    whole = gb.train(gb.dbm(64, [6, 4]), data, out=tmp_path / "large", **given)
    shutil.rmtree(tmp_path / "large" / "checkpoints")
    again = gb.resume(tmp_path / "large", progress=False)
    for a, b in zip(whole.machine.parameters(), again.machine.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (gb.rbm(5, 4), gb.dbm(5, [3, 3])),
        (gb.rbm(5, Spin(4)), gb.dbm(5, [4, 3])),
        (gb.dbm(5, [4, 3]), gb.rbm(5, 4)),
    ],
)
def test_layers_that_differ_are_refused(small, large):
    with pytest.raises(TrainingError, match=r"cannot begin as one of .*\.$"):
        growing.grow(large, small)


def test_what_cannot_be_is_refused_before_training(tmp_path):
    with pytest.raises(TrainingError, match="not both"):
        gb.train(gb.dbm(64, [6, 4]), "digits", begin="somewhere", pretrain=1)
    with pytest.raises(gb.GibbsianError, match="not a gibbsian run"):
        gb.train(gb.dbm(64, [6, 4]), "digits", begin=str(tmp_path / "none"), out=tmp_path / "large")
    assert not (tmp_path / "large").exists()
