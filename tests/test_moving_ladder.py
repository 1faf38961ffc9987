"""Samplers within PCD by name: ladders and statistics that follow the machine, and runs with them."""

import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from command_line import call
from torch import Generator

import gibbsian as gb
from gibbsian import runs, testing
from gibbsian.errors import GibbsianError, TrainingError
from gibbsian.estimators import PCD, from_spec, renewed
from gibbsian.estimators.moving_ladder import MovingLadder
from gibbsian.estimators.named import LADDERS, NAMES
from gibbsian.estimators.renewed import MovingRates
from gibbsian.samplers import RatesFPCD, TemperedTransitions


def _rows(n: int = 60) -> torch.Tensor:
    return (torch.rand(n, 6, generator=Generator().manual_seed(4)) < 0.4).float()


class Stale(MovingLadder):
    """Puts the old levels' states on the new levels in the wrong order, and the bottom's on top."""

    def renewed(self, machine, state, generator, clamps):
        made = super().renewed(machine, state, generator, clamps)
        chains = len(made.layers[0])
        bottom = tuple(made.extra[f"lower_{i}"][:chains] for i in range(len(made.layers)))
        return type(made)(bottom, made.extra)


@pytest.mark.parametrize("kind", [MovingLadder, Stale])
def test_new_levels_keep_the_law(kind, monkeypatch):
    monkeypatch.setattr(renewed, "_FIRST", 2)
    monkeypatch.setattr(renewed, "_SHARE", 0.0)
    machine = testing.perturbed(gb.rbm(6, 4), 1.5, seed=1)
    sampler = kind(_rows(), 4)
    if kind is Stale:
        with pytest.raises(AssertionError):
            testing.check_sampler(sampler, machine, chains=3000, steps=3)
    else:
        testing.check_sampler(sampler, machine, chains=2000, steps=10)


class Accepts(TemperedTransitions):
    """Takes every proposal."""

    def _accepted(self, log_weight, generator):
        return torch.ones_like(log_weight, dtype=torch.bool)


@pytest.mark.parametrize("make", [TemperedTransitions, Accepts])
def test_transitions_on_new_levels_keep_the_law(make, monkeypatch):
    monkeypatch.setattr(renewed, "_FIRST", 2)
    monkeypatch.setattr(renewed, "_SHARE", 0.0)
    machine = testing.perturbed(gb.rbm(6, 4), 1.5, seed=1)
    sampler = MovingLadder(_rows(), 2 if make is Accepts else None, make)
    if make is Accepts:
        with pytest.raises(AssertionError):
            testing.check_distribution(sampler, machine, chains=3000, steps=10)
    else:
        testing.check_sampler(sampler, machine, chains=2000, steps=10)


def test_statistics_of_the_data_follow_the_machine(monkeypatch):
    """Those of a hidden unit are its mean under the machine as it is now; fast weights are kept."""
    monkeypatch.setattr(renewed, "_FIRST", 3)
    machine, generator = gb.rbm(6, 4), Generator().manual_seed(0)
    sampler = MovingRates(RatesFPCD(_rows()))
    state = sampler.init(machine, _rows(20), generator)
    with torch.no_grad():
        machine.layers[1].bias.fill_(2.0)
    seen = []
    for _ in range(4):
        state, _ = sampler.step(machine, state, generator)
        seen.append(float(state.extra["rates.layer.1"].mean()))
    truth = float(torch.sigmoid(machine.joints[0].up(_rows()) + 2).mean().detach())
    assert abs(seen[2] - 0.5) < 0.1 and seen[3] == pytest.approx(truth, abs=1e-5)
    assert bool((state.extra["fast.joint.0"] != 0).any())


def test_levels_follow_the_machine():
    """A machine without couplings needs two levels; one with strong couplings needs more."""
    machine, generator = gb.rbm(6, 4), Generator().manual_seed(0)
    sampler = MovingLadder(_rows())
    state = sampler.init(machine, _rows(20), generator)
    assert len(state.extra["betas"]) == 2
    with torch.no_grad():
        machine.joints[0].weight.normal_(0, 4.0, generator=generator)
    seen = []
    for _ in range(renewed._FIRST + 2):
        state, info = sampler.step(machine, state, generator)
        seen.append(len(state.extra["betas"]))
    assert seen[: renewed._FIRST] == [2] * renewed._FIRST and seen[-1] > 3
    assert info.diagnostics["acceptance"].shape == (seen[-1] - 1,)
    assert 0.1 < float(info.diagnostics["acceptance"].mean()) < 0.9


def test_it_comes_back_from_its_configuration():
    method = PCD(chains=5, sampler="tempering", levels=3)
    assert from_spec(method.config).config == method.config
    assert method.config["sampler"] == "tempering" and method.config["levels"] == 3
    assert PCD(sampler="gibbs").config == PCD().config
    for name in NAMES[1:]:
        assert from_spec(PCD(sampler=name).config).config["sampler"] == name


MADE = {
    "tempering": ({"sweeps": 3}, lambda made: made.inner),
    "transitions": ({"sweeps": 3}, lambda made: made.inner),
    "driven": ({"std": 0.3, "momentum": 0.5, "steps": 70}, lambda made: made),
    "langevin": ({"size": 0.3, "adjusted": False, "hidden": "sampled", "moves": 2, "scaled": False},
                 lambda made: made),
    "gibbs-langevin": ({"size": np.float32(0.25), "moves": np.int64(3)}, lambda made: made),
    "rates": ({"rate": 0.02, "decay": 0.8, "shared": True, "statistics": "sampled"},
              lambda made: made.inner),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_options_reach_the_sampler_and_come_back_from_a_file(name):
    options, inner = MADE[name]
    method = PCD(chains=5, sampler=name, sampler_options=options)
    spec = tomllib.loads(tomli_w.dumps(method.config))
    for found in (method, from_spec(spec)):
        found.init(gb.gaussian_rbm(6, 4), _rows(), None)
        made = inner(found.sampler)
        assert {k: getattr(made, k) for k in options} == options
    assert spec == method.config and spec["sampler_options"] == options
    if name == "gibbs-langevin":
        assert made.hidden == "sampled" and made.adjusted is False
    assert "sampler_options" not in PCD(sampler=name).config


def _reached(name: str | None, seed: int) -> float:
    """Train on two far clusters, of 80 and 20 %, and return the exact log-likelihood."""
    generator = Generator().manual_seed(seed)
    first = (torch.arange(400)[:, None] < 320).float()
    flips = (torch.rand(400, 6, generator=generator) < 0.05).float()
    rows = (first - flips).abs()
    method = PCD(chains=50, sampler=name, levels=4 if name in LADDERS else None)
    data = gb.data.load(rows.numpy(), validation=0, test=0)
    machine = gb.train(
        gb.rbm(6, 4), data, method, updates=200, lr=0.5, seed=seed, progress=False
    ).machine
    from gibbsian.evaluators import exact

    return float(-machine.free_energy(rows).mean()) - exact.log_z(machine)


@pytest.mark.parametrize("name", NAMES)
def test_each_trains_by_its_name(name):
    """Gibbs reaches −1.86 nats, and independent units have −3.29."""
    if "langevin" in name:
        with pytest.raises(GibbsianError, match="Gaussian units throughout"):
            _reached(name, 0)
        return
    assert _reached(name, 0) > -2.5


@pytest.mark.parametrize(
    ("name", "options"),
    [("langevin", {}), ("langevin", {"size": 0.3, "moves": 2}), ("gibbs-langevin", {})],
)
def test_langevin_moves_train_gaussian_units(name, options):
    generator = Generator().manual_seed(0)
    rows = 2.0 + 0.5 * torch.randn(500, 3, generator=generator)
    machine = gb.gaussian_rbm(3, 2)
    data = gb.data.load(rows.numpy(), validation=0, test=0, transform="identity")
    method = PCD(sampler=name, sampler_options=options)
    gb.train(machine, data, method, updates=200, lr=0.02, progress=False)
    drawn = gb.sample(machine, 2000, 50, generator=1).samples
    assert float((drawn.mean(0) - rows.mean(0)).abs().max()) < 0.15
    assert float((drawn.std(0) / rows.std(0) - 1).abs().max()) < 0.25


@pytest.mark.parametrize(("settings", "message"), [
    ({"sampler": "temperign"}, "gibbs, tempering"), ({"levels": 3}, "sampler='tempering'"),
    ({"sampler": "tempering", "levels": 1}, "at least 2"),
    ({"sampler": gb.Gibbs(), "levels": 3}, "tempering"),
    ({"sampler": "tempering", "levels": 10**9, "chains": 10**6}, "at 1000000000 levels"),
    ({"sampler": "driven", "levels": 3}, "of tempering and transitions"),
    ({"sampler": "transitions", "levels": 1}, "at least 2"),
    ({"sampler": "trajectory"}, "the method ptt"),
    ({"sampler": "rates", "chains": 10**9}, "fast weights of 1,000,000,000 chains"),
    ({"sampler_options": {"size": 1.0}}, "gibbs takes no options; leave size out"),
    ({"sampler": "langevin", "sampler_options": 0.05}, "must be a table"),
    ({"sampler": "langevin", "sampler_options": {"siez": 1.0}}, r"options size \(a number\), .*siez=1.0"),
    ({"sampler": "langevin", "sampler_options": {"moves": 2.5}}, r"moves \(a whole number\).*moves=2.5"),
    ({"sampler": "langevin", "sampler_options": {"moves": True}}, "not moves=True"),
    ({"sampler": "gibbs-langevin", "sampler_options": {"scaled": 1}}, r"\(true or false\), not scaled=1"),
    ({"sampler": "rates", "sampler_options": {"data": 3}}, r"statistics \(a text\), not data=3"),
    ({"sampler": "tempering", "sampler_options": {"levels": 3}}, r"sweeps \(a whole number\), not levels"),
    ({"sampler": gb.Gibbs(), "sampler_options": {"size": 1.0}}, "when it is made"),
])  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(TrainingError, match=message):
        PCD(**settings).init(gb.rbm(6, 4), _rows(), None)


OPTIONS = {
    "pcd": "--chains 7 --steps 2 --refresh 0.1 --sampler tempering --levels 3",
    "pcd transitions": "--chains 7 --sampler transitions --levels 4",
    "pcd driven": "--chains 7 --sampler driven --sampler-option std=0.3 --sampler-option steps=20",
    "pcd rates": "--chains 7 --steps 2 --sampler rates",
    "pcd fast weights": "--chains 7 --sampler rates --sampler-option statistics=sampled",
    "jarzynski": "--chains 7 --steps 2 --witnesses 5",
    "ptt": "--chains 7 --steps 2 --reservoir 4 --acceptance 0.4",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_method_reach_its_run_which_resumes_exactly(name, tmp_path, monkeypatch):
    monkeypatch.setattr(renewed, "_FIRST", 10)
    np.save(tmp_path / "rows.npy", _rows().numpy().astype("uint8"))
    found = call(
        "train", tmp_path / "rows.npy", "--hidden", 4, "--method", name.split()[0], *OPTIONS[name].split(),
        "--updates", 24, "--checkpoint-every", 12, "--out", tmp_path / "run",
    )  # fmt: skip
    assert found.code == 0, found.err
    words = OPTIONS[name].split()
    given = [(k[2:], v) for k, v in zip(words[::2], words[1::2], strict=True)]
    asked = {k: v for k, v in given if k != "sampler-option"}
    method = runs.open_run(tmp_path / "run").config["method"]
    assert {k: str(method[k]) for k in asked} == asked and method["kind"] == name.split()[0]
    kept = [f"{k}={v}" for k, v in method.get("sampler_options", {}).items()]
    assert kept == [v for k, v in given if k == "sampler-option"]
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
    from gibbsian import memory

    machine, generator = gb.rbm(6, 4), Generator().manual_seed(0)
    sampler = MovingLadder(_rows())
    state = sampler.init(machine, _rows(20), generator)
    monkeypatch.setattr(memory, "free_memory", lambda like: 100)
    monkeypatch.setattr(renewed, "_FIRST", 0)
    with pytest.raises(GibbsianError, match="20 chains at 2 levels of tempering"):
        sampler.step(machine, state, generator)
