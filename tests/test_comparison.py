"""Several models side by side: plans, runs that go on, denoising against the truth, the command."""

import dataclasses
import itertools
import json
import tomllib

import pytest
import torch
from command_line import call, works

import gibbsian as gb
from gibbsian import comparison, meanfield
from gibbsian.comparison import comparing, page
from gibbsian.comparison.denoising import denoise, posterior
from gibbsian.comparison.figures import Pictures, held_out
from gibbsian.comparison.training import Cost
from gibbsian.repair import reconstruct

TABLE = """
title = "Three small machines"
seed = 1

[data]
source = "bars-and-stripes:n=3,rows=200"

[defaults]
hidden = 4
updates = 40
method = { kind = "pcd", chains = 10 }

[models.hopfield]
label = "Hopfield"
model = "hopfield"
lr = 0.01

[models.rbm]
label = "RBM"

[models.deep]
label = "DBM"
model = "dbm"
hidden = [4, 3]

[figures]
columns = 4
fantasy_steps = 10
denoising_rows = 20
denoising_steps = 4
features = 4

[evaluation]
chains = 8
temperatures = 20
mixing_steps = 16
ladder_steps = 0
"""

LITTLE = {"chains": 2, "temperatures": 2, "mixing_steps": 16, "ladder_steps": 0, "rows": 10}


def plan(text: str = TABLE) -> comparison.Plan:
    return comparison.parse(tomllib.loads(text))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> comparison.Comparison:
    return comparison.compare(plan(), tmp_path_factory.mktemp("comparison") / "out")


def test_each_model_has_its_run_and_its_row(made: comparison.Comparison) -> None:
    assert [r["name"] for r in made.rows] == ["hopfield", "rbm", "deep"]
    for row, fitted in zip(made.rows, made.fitted, strict=True):
        run = gb.load(made.page.parent / row["name"])
        assert run.step == row["updates"] == 40
        assert run.machine.sizes == fitted.trained.machine.sizes
        assert row["seconds"] > 0 and row["held_out"] == "test"
        assert row["denoising"]["damaged"]["wrong"] == pytest.approx(0.15, abs=0.1)
    assert [r["layers"] for r in made.rows] == [
        "9 Bernoulli – 4 Gaussian", "9–4 Bernoulli", "9–4–3 Bernoulli",
    ]  # fmt: skip
    likelihood = made.rows[1]["likelihood"]
    exact = gb.evaluate(made.fitted[1].trained, seed=1, **plan().evaluation)
    split = exact.splits["test"].log_likelihood
    assert split is not None and likelihood["exact"] == pytest.approx(split.as_dict()["exact"])


def test_the_page_holds_table_and_pictures(made: comparison.Comparison) -> None:
    folder, page = made.page.parent, made.page.read_text()
    for part in (
        "Side by side",
        "Reconstructions",
        "Fantasy particles",
        "Denoising",
        "Features: DBM",
    ):
        assert part in page
    assert "http://" not in page and "by the posterior" in page
    names = {p.name for p in folder.glob("*.png")}
    assert {
        "data.png", "reconstructions.png", "fantasies_driven.png", "fantasies_gibbs.png",
        "denoising_mean-field.png", "denoising_posterior.png", "features_rbm_1.png", "features_deep_2.png",
    } <= names  # fmt: skip
    stored = json.loads((folder / "comparison.json").read_text())
    assert stored["models"] == made.rows
    assert comparison.read(folder / "comparison.toml") == plan()


def test_a_complete_comparison_is_only_drawn_anew(made, monkeypatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr(comparing, "evaluate", never)
    folder = made.page.parent
    files = {p: p.stat().st_mtime_ns for p in folder.glob("*/checkpoints/*")}
    page = made.page.read_bytes()
    again = comparison.compare(None, folder, resume=True)
    assert again.rows == made.rows
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/checkpoints/*")} == files
    assert again.page.read_bytes() == page


def test_a_killed_model_goes_on_and_ends_the_same(made, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Pictures, "all", lambda _: [])
    monkeypatch.setattr(comparing, "evaluate", lambda run, **_: gb.evaluate(run, **LITTLE))

    def killed(self: Cost, trainer) -> None:
        if trainer.step == 30 and len(trainer.machine.layers) == 3:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Cost, "on_update", killed)
        with pytest.raises(MemoryError):
            comparison.compare(plan(), tmp_path / "out")
    deep = tmp_path / "out" / "deep"
    assert 0 < gb.load(deep).step < 30
    before = gb.load(deep).run.checkpoint().tree["callbacks"]["Cost"]["seconds"]
    rbm = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "rbm").rglob("*.safetensors")}
    again = comparison.compare(plan(), tmp_path / "out", resume=True)
    assert rbm == {p: p.stat().st_mtime_ns for p in rbm}
    assert 0 < before < again.rows[2]["seconds"]
    for one, other in zip(again.fitted, made.fitted, strict=True):
        ours, theirs = (f.trained.machine.state_dict() for f in (one, other))
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_an_overwritten_comparison_leaves_no_run_of_the_old_one(tmp_path, monkeypatch) -> None:
    """Killed in its first training and resumed, the new one has no model of the old one in it."""
    monkeypatch.setattr(Pictures, "all", lambda _: [])
    monkeypatch.setattr(comparing, "evaluate", lambda run, **_: gb.evaluate(run, **LITTLE))
    out, old = tmp_path / "out", TABLE.replace("updates = 40", "updates = 4")
    comparison.compare(plan(old.replace("[models.rbm]", "[models.other]")), out)

    def killed(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "fit", killed)
        with pytest.raises(MemoryError):
            comparison.compare(plan(old.replace("seed = 1", "seed = 2")), out, overwrite=True)
    assert not any((out / name).exists() for name in ("hopfield", "rbm", "deep", "other"))
    found = comparison.compare(None, out, resume=True)
    assert [f.trained.config["training"]["seed"] for f in found.fitted] == [2, 2, 2]


def believed(value: float, is_bound: bool = False) -> dict:
    return {
        "is_bound": is_bound,
        "believed": {"value": value, "low": value - 0.1, "high": value + 0.1, "name": "ladder"},
    }


def test_the_headline_knows_that_a_bound_may_be_exceeded() -> None:
    rbm = {"label": "RBM", "likelihood": believed(-16.0)}
    deep = {"label": "DBM", "likelihood": believed(-17.0, is_bound=True)}
    found = page._headline([rbm, deep], 2)
    assert "RBM is likeliest of all: −16.00" in found
    assert "DBM, known by a lower bound alone, may be likelier" in found
    assert "lower bound" not in page._headline([rbm, deep | {"likelihood": believed(-17.0)}], 2)
    # A bound that is the largest is likeliest in any case.
    best = page._headline([rbm, deep | {"likelihood": believed(-15.0, is_bound=True)}], 2)
    assert "DBM is likeliest of all: at least −15.00" in best and "may be" not in best


def test_pictures_of_fewer_rows_than_columns(made: comparison.Comparison, tmp_path) -> None:
    """Three rows are damaged where four stand beside each other: the picture has three."""
    few = plan(TABLE.replace("denoising_rows = 20", "denoising_rows = 3"))
    denoised = {}
    for f in made.fitted:
        rows = held_out(f, 3, few.seed)[1]
        denoised[f.model.name] = denoise(f.trained.machine, rows, 0.15, 2)
    drawn = Pictures(few, made.fitted, denoised, tmp_path)
    assert len(drawn.denoising().images) == 2
    drawn._data = {k: v[:2] for k, v in drawn._data.items()}
    assert len(drawn.fantasies().images) == 2


def test_the_page_calls_a_squared_error_by_its_name(made: comparison.Comparison) -> None:
    rows = [dict(r) for r in made.rows]
    assert "wrong before" in page.render(made.plan, rows, [])
    damaged = {"squared": 1.25, "squared_se": 0.1, "wrong": None, "wrong_se": None}
    rows[0]["denoising"] = rows[0]["denoising"] | {"damaged": damaged}
    real = page.render(made.plan, rows, [])
    assert "1.2500 squared error before" in real and "wrong before" not in real


def test_presets_are_plans_and_scale() -> None:
    for name in comparison.presets():
        found = comparison.preset(name)
        assert comparison.parse(found.as_dict()) == found
    notebook = comparison.preset("mnist-notebook")
    assert [m.name for m in notebook.models] == ["hopfield", "rbm", "sparse-rbm", "dbm"]
    small = notebook.scaled(0.01)
    for one, other in zip(small.models, notebook.models, strict=True):
        assert one.settings["updates"] == other.settings["updates"] // 100
    assert small.evaluation["chains"] == notebook.evaluation["chains"]
    # What is small already does not grow.
    one = dataclasses.replace(notebook, evaluation={"temperatures": 4, "mixing_steps": 100})
    assert one.scaled(1.0) == one
    assert one.scaled(0.01).evaluation == {"temperatures": 4, "mixing_steps": 16}


def test_other_data_bring_their_own_settings() -> None:
    digits = comparison.preset("mnist-notebook", "digits", "folder")
    assert digits.data == {"source": "digits", "transform": "threshold", "data_dir": "folder"}
    assert digits.title.endswith("8×8 digits")
    # A model's own changes go over its table, and leave the rest of it.
    own = {m.name: m.settings.get("lr") for m in digits.models}
    assert own["dbm"] == 0.1 and own["rbm"] is None and digits.models[-1].kind == "dbm"
    mnist, other = (comparison.preset("mnist-notebook", data) for data in (None, "table.csv"))
    assert digits.models[0].settings["updates"] < mnist.models[0].settings["updates"]
    assert digits.models[3].hidden == [200, 200]
    assert other.models == mnist.models and other.data["source"] == "table.csv"


# The truth about denoising, by enumeration.


def shaken(visible: gb.Units, *hidden: gb.Units) -> gb.BoltzmannMachine:
    machine = gb.layered(visible, *hidden)
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in machine.parameters():
            p.copy_(torch.randn(p.shape, generator=source))
    return machine


def exact_posterior(machine: gb.BoltzmannMachine, seen: torch.Tensor, flip: float) -> torch.Tensor:
    """Sum over all states of a machine of two-valued units."""
    values = [torch.cat(u.domain.blocks(), dim=1) for u in machine.layers]
    table = [torch.tensor(list(itertools.product(*v.T.tolist()))) for v in values]
    states = [torch.stack(s) for s in zip(*itertools.product(*table), strict=True)]
    agree = (states[0] == seen).double()
    noise = (agree * torch.tensor(1 - flip).log() + (1 - agree) * torch.tensor(flip).log()).sum(1)
    weight = (noise - machine.energy(states).detach()).softmax(0)
    return weight @ states[0].double()


@pytest.mark.parametrize(
    "layers", [(gb.Bernoulli, gb.Bernoulli), (gb.Spin, gb.Bernoulli), (gb.Bernoulli, gb.Spin, gb.Bernoulli)],
    ids=["bits", "spins", "deep"],
)  # fmt: skip
def test_posterior_against_enumeration(layers) -> None:
    machine = shaken(*(family(n) for family, n in zip(layers, (4, 3, 2), strict=False)))
    low, high = torch.cat(machine.layers[0].domain.blocks(), dim=1)
    seen = torch.where(torch.tensor([True, False, True, True]), high, low)
    chains, steps = 400, 60
    found = posterior(machine, seen.repeat(chains, 1), 0.2, steps, torch.Generator().manual_seed(0))
    error = found.double().std(dim=0) / chains**0.5

    def off(flip: float) -> float:
        return float(
            ((found.double().mean(0) - exact_posterior(machine, seen, flip)) / error).abs().max()
        )

    assert off(0.2) < 4
    assert off(0.1) > 8  # another noise than the rows have


def test_reconstruction_is_one_pass_in_an_rbm_and_hears_both_sides_in_a_deep_machine() -> None:
    shallow, x = shaken(gb.Bernoulli(4), gb.Bernoulli(3)), torch.eye(4)
    up = torch.sigmoid(x @ shallow.joints[0].weight + shallow.layers[1].bias)
    down = torch.sigmoid(up @ shallow.joints[0].weight.T + shallow.layers[0].bias)
    assert torch.allclose(reconstruct(shallow, x), down)
    deep = shaken(gb.Bernoulli(4), gb.Bernoulli(3), gb.Bernoulli(2))
    means = meanfield.infer(deep, x).means
    again = torch.sigmoid(deep.field(1, means) + deep.layers[1].bias)
    assert torch.allclose(again, means[1], atol=1e-3)
    expected = torch.sigmoid(means[1] @ deep.joints[0].weight.T + deep.layers[0].bias)
    assert torch.allclose(reconstruct(deep, x), expected, atol=1e-4)
    alone = torch.sigmoid(x @ deep.joints[0].weight + deep.layers[1].bias)
    above = torch.sigmoid(alone @ deep.joints[1].weight + deep.layers[2].bias)
    below = torch.sigmoid(above @ deep.joints[1].weight.T + deep.layers[1].bias)
    for one_sided in (alone, below):  # what the other side says, left out
        wrong = torch.sigmoid(one_sided @ deep.joints[0].weight.T + deep.layers[0].bias)
        assert not torch.allclose(reconstruct(deep, x), wrong, atol=1e-2)


def test_denoising_knows_what_it_measures() -> None:
    machine, source = shaken(gb.Bernoulli(4), gb.Bernoulli(3)), torch.Generator()
    x = gb.sample(machine, 2000, 50).samples
    found = denoise(machine, x, 0.15, 50, source.manual_seed(1)).errors
    assert found["damaged"]["wrong"] == found["damaged"]["squared"]
    # The posterior mean has the least squared error if the machine is right, and here it is.
    assert found["posterior"]["squared"] < found["mean-field"]["squared"]
    assert found["posterior"]["squared"] < found["damaged"]["squared"]
    rows = gb.sample(gb.gaussian_rbm(4, 3), 20, 5).samples
    real = denoise(gb.gaussian_rbm(4, 3), rows, 0.15, 5, source)
    assert set(real.restored) == {"mean-field"} and real.errors["mean-field"]["wrong"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("title", "name"), "known are title, seed"),
        (("[models", "[machines"), "unknown part 'machines'"),
        (("[figures]", "[on.digits]\nsizes = {}\n[figures]"), "part of [on.digits] 'sizes'"),
        (("[figures]", "[on.digits]\nmodels = {x = {}}\n[figures]"), "model of [on.digits] 'x'"),
        (("[figures]", "[on]\ndigits = 3\n[figures]"), "it must be a table"),
        (('model = "hopfield"', 'model = "hopfeld"'), "no model 'hopfeld'; known are rbm"),
        (
            ('model = "hopfield"', 'model = "dbn"'),
            "is a deep belief network, which is several machines",
        ),
        (("lr = 0.01", "rate = 0.01"), "no training setting 'rate'"),
        (("columns = 4", "wide = 4"), "setting of the figures 'wide'; known are columns"),
        (("columns = 4", "flip = 2"), "flip lies from 0 to 1"),
        (("chains = 8", "chain = 8"), "setting of the evaluation 'chain'"),
        (("temperatures = 20", "temperatures = 0"), "temperatures must be a whole number"),
        (("source =", "file ="), "setting of the data 'file'"),
        (('source = "bars-and-stripes:n=3,rows=200"', ""), "names no data"),
        (
            ('rows=200"', 'rows=200"\ntransform = 3'),
            "transform = 3 in [data]; it must be a text or a list",
        ),
        (
            ('rows=200"', 'rows=200"\ntransform = ["scale", 3]'),
            "it must be a text or a list of texts",
        ),
        (('rows=200"', 'rows=200"\nlimit = "many"'), "it must be a whole number"),
        (('rows=200"', 'rows=200"\nvalidation = [0.1]'), "a share, a number of rows, or a file"),
        (('rows=200"', 'rows=200"\ntest = true'), "a share, a number of rows, or a file"),
        (('rows=200"', 'rows=200"\nimage_shape = 3'), "a list of whole numbers"),
        (('label = "DBM"', 'label = "RBM"'), "names another row of the pictures"),
        (('label = "DBM"', 'label = "Noisy"'), "names another row of the pictures"),
        (("hidden = 4", 'hidden = "four"'), "must be a whole number"),
        (("[4, 3]", "[]"), "at least one"),
        (("[models.rbm]", '[models."a/b"]'), "cannot be a folder's name"),
        (('kind = "pcd"', 'kind = "pdc"'), "pdc"),
    ],
)
def test_bad_configs_end_in_a_sentence(change, words, tmp_path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(TABLE.replace(*change))
    assert words in call("compare", file, "--out", tmp_path / "out", "-q").sentence
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_fit_shows_before_any_training(tmp_path) -> None:
    wrong = plan(TABLE.replace('model = "dbm"', 'model = "gaussian-rbm"'))
    with pytest.raises(gb.GibbsianError):
        comparison.compare(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(made: comparison.Comparison, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Pictures, "all", lambda _: [])
    folder = made.page.parent
    out = works("compare", "--resume", "--out", folder, "--quiet").out
    assert "Hopfield" in out and "comparison.html" in out
    assert json.loads(works("compare", "--resume", "--out", folder, "--json").out) == made.rows
    file = tmp_path / "models.toml"
    file.write_text(TABLE)
    assert "resume it, overwrite it" in call("compare", file, "--out", folder).sentence
    assert "takes --out alone" in call("compare", file, "--resume", "--out", folder).sentence
    assert "no comparison to resume" in call("compare", "--resume", "--out", tmp_path).sentence
    assert "is not empty" in call("compare", file, "--out", tmp_path).sentence
    assert "known are mnist-notebook" in call("compare", "--preset", "minst").sentence
    assert "Name a comparison" in call("compare").sentence
    assert "gibbsian compare --resume" in works("compare", "--help").out
    assert "not both" in call("compare", file, "--preset", "mnist-notebook").sentence
    assert "cannot be read" in call("compare", tmp_path / "none.toml").sentence
    assert "is a folder, and a comparison is read" in call("compare", folder).sentence
    assert "must be positive" in call("compare", file, "--scale", "0").sentence
    file.write_text("title = ")
    assert "no valid TOML" in call("compare", file).sentence
