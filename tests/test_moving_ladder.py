"""Tempering within PCD: a ladder that follows the machine, and runs with it."""

import numpy as np
import pytest
import torch
from command_line import call
from torch import Generator

import gibbsian as gb
from gibbsian import runs, testing
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.estimators import PCD, from_spec, moving_ladder
from gibbsian.estimators.moving_ladder import MovingLadder


def _rows(n: int = 60) -> torch.Tensor:
    return (torch.rand(n, 6, generator=Generator().manual_seed(4)) < 0.4).float()


class Stale(MovingLadder):
    """Puts the old levels' states on the new levels in the wrong order, and the bottom's on top."""

    def _placed(self, machine, state, generator, clamps):
        made = super()._placed(machine, state, generator, clamps)
        chains = len(made.layers[0])
        bottom = tuple(made.extra[f"lower_{i}"][:chains] for i in range(len(made.layers)))
        return type(made)(bottom, made.extra)


@pytest.mark.parametrize("kind", [MovingLadder, Stale])
def test_new_levels_keep_the_law(kind, monkeypatch):
    monkeypatch.setattr(moving_ladder, "_FIRST", 2)
    monkeypatch.setattr(moving_ladder, "_SHARE", 0.0)
    machine = testing.perturbed(gb.rbm(6, 4), 1.5, seed=1)
    sampler = kind(_rows(), 4)
    if kind is Stale:
        with pytest.raises(AssertionError):
            testing.check_sampler(sampler, machine, chains=3000, steps=3)
    else:
        testing.check_sampler(sampler, machine, chains=2000, steps=10)


def test_levels_follow_the_machine():
    """A machine without couplings needs two levels; one with strong couplings needs more."""
    machine, generator = gb.rbm(6, 4), Generator().manual_seed(0)
    sampler = MovingLadder(_rows())
    state = sampler.init(machine, _rows(20), generator)
    assert len(state.extra["betas"]) == 2
    with torch.no_grad():
        machine.joints[0].weight.normal_(0, 4.0, generator=generator)
    seen = []
    for _ in range(moving_ladder._FIRST + 2):
        state, info = sampler.step(machine, state, generator)
        seen.append(len(state.extra["betas"]))
    assert seen[: moving_ladder._FIRST] == [2] * moving_ladder._FIRST and seen[-1] > 3
    assert info.diagnostics["acceptance"].shape == (seen[-1] - 1,)
    assert 0.1 < float(info.diagnostics["acceptance"].mean()) < 0.9


def test_it_comes_back_from_its_configuration():
    method = PCD(chains=5, sampler="tempering", levels=3)
    assert from_spec(method.config).config == method.config
    assert method.config["sampler"] == "tempering" and method.config["levels"] == 3
    assert PCD(sampler="gibbs").config == PCD().config


@pytest.mark.parametrize(("settings", "message"), [
    ({"sampler": "temperign"}, "gibbs, tempering"), ({"levels": 3}, "sampler='tempering'"),
    ({"sampler": "tempering", "levels": 1}, "at least 2"),
    ({"sampler": gb.Gibbs(), "levels": 3}, "tempering"),
    ({"sampler": "tempering", "levels": 10**9, "chains": 10**6}, "at 1000000000 levels"),
])  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(TrainingError, match=message):
        PCD(**settings).init(gb.rbm(6, 4), _rows(), None)


OPTIONS = {
    "pcd": "--chains 7 --steps 2 --refresh 0.1 --sampler tempering --levels 3",
    "jarzynski": "--chains 7 --steps 2 --witnesses 5",
    "ptt": "--chains 7 --steps 2 --reservoir 4 --acceptance 0.4",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_method_reach_its_run_which_resumes_exactly(name, tmp_path, monkeypatch):
    monkeypatch.setattr(moving_ladder, "_FIRST", 10)
    np.save(tmp_path / "rows.npy", _rows().numpy().astype("uint8"))
    found = call(
        "train", tmp_path / "rows.npy", "--hidden", 4, "--method", name, *OPTIONS[name].split(),
        "--updates", 24, "--checkpoint-every", 12, "--out", tmp_path / "run",
    )  # fmt: skip
    assert found.code == 0, found.err
    words = OPTIONS[name].split()
    asked = {k[2:].replace("-", "_"): v for k, v in zip(words[::2], words[1::2], strict=True)}
    method = runs.open_run(tmp_path / "run").config["method"]
    assert {k: str(method[k]) for k in asked} == asked and method["kind"] == name
    whole = runs.open_run(tmp_path / "run").checkpoint().tree
    found = call("train", "--resume", "--out", tmp_path / "run", "--checkpoint", 12)
    assert found.code == 0, found.err
    again = runs.open_run(tmp_path / "run").checkpoint().tree
    assert whole["step"] == again["step"] == 24
    for part in ("machine", "average"):
        assert all(torch.equal(t, again[part][k]) for k, t in whole[part].items())
    chains, after = whole["chains"], again["chains"]
    if chains is not None:
        assert all(map(torch.equal, chains["layers"], after["layers"]))
        assert all(torch.equal(t, after["extra"][k]) for k, t in chains["extra"].items())


def test_more_levels_than_memory_holds_are_refused(monkeypatch):
    """Whatever the pilot run asks for is checked, too."""
    from gibbsian.estimators import chains

    machine, generator = gb.rbm(6, 4), Generator().manual_seed(0)
    sampler = MovingLadder(_rows())
    state = sampler.init(machine, _rows(20), generator)
    monkeypatch.setattr(chains, "free_memory", lambda like: 100)
    monkeypatch.setattr(moving_ladder, "_FIRST", 0)
    with pytest.raises(GibbsianError, match="20 chains at 2 levels of tempering"):
        sampler.step(machine, state, generator)
