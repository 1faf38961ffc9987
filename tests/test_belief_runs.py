"""Runs of deep belief networks: stages, resuming after a kill, commands, and the example."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, works

import gibbsian as gb
from gibbsian import plots
from gibbsian.belief import classifier, updown, with_labels
from gibbsian.belief import runs as belief_runs
from gibbsian.belief.beside import beside, classes_of
from gibbsian.belief.greedy import machines
from gibbsian.belief.updown import UpDown
from gibbsian.cli import dbn
from gibbsian.errors import DataError, GibbsianError, GibbsianWarning, RunError, TrainingError
from gibbsian.training import Trainer

QUICK: dict[str, Any] = {
    "updates": 12,
    "log_every": 12,
    "checkpoint_every": 12,
    "progress": False,
    "seed": 3,
}
SELDOM = ("--log-every", "20", "--checkpoint-every", "10")


def stripes(rows: int = 200, **more) -> gb.data.Dataset:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    x = np.zeros((rows, 6), dtype=np.float32)
    x[y == 0, :3], x[y == 1, 3:] = 1, 1
    return gb.data.load(x, labels=np.where(y == 0, 3, 8), transform="identity", **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of 64-12-10 units with labels on scikit-learn's digits."""
    out = tmp_path_factory.mktemp("belief") / "run"
    found = works("train", "digits", "--model", "dbn", "--hidden", "12,10", "--labels", "--updates", 20,
                  "--updown-epochs", 1, *SELDOM, "--out", out)  # fmt: skip
    assert "64-12-10" in found.out
    return out


def test_rows_carry_their_labels() -> None:
    data = stripes()
    joined = beside(data, classes_of(data))
    assert joined.n_features == 8
    for part in (joined.train, joined.validation, joined.test):
        assert part is not None
        hot = part.tensor()[:, 6:]
        assert torch.equal(hot.sum(dim=1), torch.ones(len(hot)))
        assert part.labels is not None
        assert np.array_equal(np.array([3, 8])[hot.argmax(dim=1)], part.labels)
    for batch in joined.batches(20, epoch=1, seed=0):
        assert batch.labels is not None
        assert torch.equal(torch.tensor([3, 8])[batch.x[:, 6:].argmax(dim=1)], batch.labels)
        assert torch.equal(batch.x[:, 0] > 0, batch.labels == 3)


def test_classes_come_in_any_order() -> None:
    joined = beside(stripes(), [8, 3])
    hot = joined.train.tensor()[:, 6:]
    assert joined.train.labels is not None
    assert np.array_equal(np.array([8, 3])[hot.argmax(dim=1)], joined.train.labels)


def test_depth_one_trains_as_the_rbm_does() -> None:
    data = stripes()
    found = belief_runs.train(
        data, [4], visible=gb.Bernoulli(6), up_down=updown.Settings(), **QUICK
    )
    plain = gb.train(gb.rbm(6, 4), data, **QUICK)
    assert found.stage == "layers"
    for p, q in zip(found.network.parameters(), plain.machine.parameters(), strict=True):
        assert torch.equal(p, q)


def test_depth_one_with_labels_trains_as_the_rbm_of_rows_and_labels_does() -> None:
    data = stripes()
    found = belief_runs.train(data, [4], visible=gb.Bernoulli(6), labels=True, **QUICK)
    rows = beside(data, [3, 8])
    plain = gb.train(gb.rbm(with_labels(gb.Bernoulli(6), 2), 4), rows, **QUICK)
    for p, q in zip(found.network.parameters(), plain.machine.parameters(), strict=True):
        assert torch.equal(p, q)


def test_one_hidden_layer_says_that_it_has_no_up_down_stage() -> None:
    said: list[str] = []
    belief_runs.train(stripes(), [4], visible=gb.Bernoulli(6), up_down=updown.Settings(),
                      tell=said.append, **QUICK)  # fmt: skip
    assert sum("no up-down stage" in s for s in said) == 1
    said.clear()
    belief_runs.train(stripes(), [4], visible=gb.Bernoulli(6), tell=said.append, **QUICK)
    assert not any("up-down" in s for s in said)


def test_a_run_without_labels_has_no_class_to_hold() -> None:
    found = belief_runs.train(stripes(), [4, 3], visible=gb.Bernoulli(6), **QUICK)
    with pytest.raises(GibbsianError, match="trained without labels, so there is no class"):
        dbn.codes("seven", found)


def test_layers_of_any_units() -> None:
    rng = np.random.default_rng(0)
    data = gb.data.load(rng.normal(size=(120, 5)).astype(np.float32), transform="standardise")
    hidden = [gb.Softmax(2, 3), gb.Spin(3)]
    found = belief_runs.train(
        data, hidden, visible=gb.Gaussian(5), up_down=updown.Settings(epochs=1), lr=0.01, **QUICK
    )
    made = found.network.generate(7, 5)
    assert made.samples.shape == (7, 5)
    assert bool(made.samples.isfinite().all())


def same(one: Path, other: Path) -> bool:
    a, b = (belief_runs.load(p).network.state_dict() for p in (one, other))
    return all(torch.equal(a[k], b[k]) for k in a)


class Killed(BaseException):
    """What no code catches."""


@pytest.mark.parametrize(("stage", "at"), [("layers/2", 15), ("updown", 9)])
def test_a_killed_run_goes_on_at_its_stage(tmp_path, run, monkeypatch, stage: str, at: int) -> None:
    """Killed while a later stage is trained, and resumed, it ends as if nothing had happened."""
    out = tmp_path / "b"
    owner, name = (UpDown, "update") if stage == "updown" else (Trainer, "_update")
    real = getattr(owner, name)

    def update(self, *rest) -> None:
        if str(self.run.path).endswith(stage) and self.step == at:
            raise Killed
        real(self, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, update)
        with pytest.raises(Killed):
            call("train", "digits", "--model", "dbn", "--hidden", "12,10", "--labels", "--updates", 20,
                 "--updown-epochs", 1, *SELDOM, "-q", "--out", out)  # fmt: skip
    assert (out / stage).is_dir()
    if stage != "updown":
        with pytest.raises(RunError, match="1 of its 2 machines trained"):
            belief_runs.load(out)
    works("train", "--resume", "--out", out, "-q")
    assert same(run, out)


def test_a_finished_run_is_resumed_without_a_change(tmp_path, run) -> None:
    works("train", "--config", run / "config.toml", "--out", tmp_path / "b", "-q")
    assert same(run, tmp_path / "b")
    works("train", "--resume", "--out", tmp_path / "b", "-q")
    assert same(run, tmp_path / "b")


def test_overwriting_begins_all_stages_anew(tmp_path) -> None:
    out, data = tmp_path / "a", stripes()
    first = belief_runs.train(data, [4, 3], visible=gb.Bernoulli(6), out=out, **QUICK)
    again = belief_runs.train(
        data, [4, 3], visible=gb.Bernoulli(6), out=out, overwrite=True, **{**QUICK, "seed": 4}
    )
    a, b = first.network.top.joints[0].weight, again.network.top.joints[0].weight
    assert not torch.equal(a, b)
    assert belief_runs.resume(out, data, progress=False).network.sizes == (6, 4, 3)


def test_samples_of_a_class(tmp_path, run) -> None:
    out = works(
        "sample", run, "--class", "7", "-n", 6, "--steps", 5, "--out", tmp_path / "s.npz"
    ).out
    assert "6 samples of class 7 after 5 steps of the top machine from noise" in out
    with np.load(tmp_path / "s.npz") as found:
        assert found["labels"].tolist() == [7] * 6
        assert found["samples"].shape == (6, 64)
        assert set(np.unique(found["samples"])) <= {0, 1}
    out = works("sample", run, "--class", "0,1", "-n", 4, "--steps", 2, "--means", "--start", "test",
                "--out", tmp_path / "s.png").out  # fmt: skip
    assert "conditional means of class 0,1" in out
    assert (tmp_path / "s.png").stat().st_size > 100


def test_samples_of_several_classes_are_drawn_by_class(tmp_path, run, monkeypatch) -> None:
    drawn, draw = {}, plots.classes
    monkeypatch.setattr(plots, "classes", lambda s, shape: (drawn.update(s), draw(s, shape))[1])
    how = ("--steps", 2, "--seed", 1)
    works("sample", run, "--class", "2,0,2", "-n", 8, *how, "--out", tmp_path / "s.png")
    works("sample", run, "--class", "2,0,2", "-n", 8, *how, "--out", tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as found:
        samples, labels = found["samples"], found["labels"]
    assert labels.tolist() == [2, 2, 2, 0, 0, 0, 2, 2]
    assert list(drawn) == ["2", "0"]
    for name, rows in drawn.items():
        assert np.array_equal(rows, samples[labels == int(name)])
    drawn.clear()
    works("sample", run, "--class", "7,7", "-n", 4, *how, "--out", tmp_path / "one.png")
    assert not drawn  # one class needs no names


def test_evaluate_prints_error_and_bound(run, capsys) -> None:
    out = works("evaluate", run, "--temperatures", 50, "--chains", 10, "--rows", 60, "--ladder-steps", 0,
                "--json", "-q").out  # fmt: skip
    found = json.loads(out)
    assert 0 <= found["test"]["label_error"] <= 1
    assert found["test"]["bound"]["mean"] < 0
    dbn._show(found)
    told = capsys.readouterr().out
    assert "label error" in told
    assert "log Z of the top machine" in told


def test_one_row_has_no_standard_error_in_json(run) -> None:
    out = works("evaluate", run, "--temperatures", 5, "--chains", 4, "--rows", 1, "--ladder-steps", 0,
                "--json", "-q").out  # fmt: skip
    assert json.loads(out)["test"]["bound"]["standard_error"] is None


def test_finetune_leaves_a_classifier(run) -> None:
    out = works(
        "finetune", run, "--epochs", 2, "--dropout", 0.1, "--transform", "scale", "--json"
    ).out
    found = json.loads(out)
    model = classifier.read(found["classifier"])
    data = gb.data.load("digits", transform="scale")
    assert data.test is not None
    wrong = model.classify(data.test.tensor()) != torch.as_tensor(data.test.labels)
    assert float(wrong.double().mean()) == pytest.approx(found["error"]["test"])
    assert "already holds a fine-tuning" in call("finetune", run).sentence
    again = json.loads(works("finetune", run, "--resume", "--json").out)
    assert again == found


@pytest.mark.parametrize(("words", "said"), [
    (["sample", "RUN", "--class", "12"], "never saw; its classes are 0, 1"),
    (["sample", "RUN", "--class", "seven"], "takes a class of the run, not 'seven'"),
    (["sample", "RUN", "--class=--7"], "takes a class of the run, not '--7'"),
    (["sample", "RUN", "--class", "9" * 30], "takes a class of the run"),
    (["sample", "RUN", "--class", "0,1,2", "-n", "2"], "2 samples cannot show 3 classes"),
    (["sample", "RUN", "--sampler", "tempering"], "block Gibbs in its top machine"),
    (["sample", "RUN", "--device", "cuda"], "on the CPU"),
    (["evaluate", "RUN", "--sampler", "tempering"], "no certificate for deep belief networks"),
    (["evaluate", "RUN", "--mixing-steps", "100"], "no certificate for deep belief networks"),
    (["evaluate", "RUN", "--held-out-margin", "0.2"], "no certificate for deep belief networks"),
    (["evaluate", "RUN", "--held-out", "test"], "no certificate for deep belief networks"),
    (["evaluate", "RUN", "--checkpoint", "3"], "in its newest state"),
    (["features", "RUN", "--device", "cuda"], "in its newest state"),
    (["sample", "RUN", "--out", "x.gif"], "ends in .npz or .png"),
    (["sample", "RUN/layers/1", "--class", "3"], "has no classes to hold"),
    (["finetune", "RUN/layers/1"], "holds no deep belief network"),
    (["report", "RUN"], "of the kind dbn"),
    (["reconstruct", "RUN", "--flip", "0.1"], "of the kind dbn"),
    (["train", "--resume", "--checkpoint", "3", "--out", "RUN"], "without --checkpoint"),
    (["train", "digits", "--model", "dbn", "--labels", "--classes", "4", "--out", "T"], "the label 4"),
    (["train", "bars-and-stripes", "--model", "dbn", "--labels", "--out", "T"], "has no labels"),
    (["train", "digits", "--updown-epochs", "3", "--out", "T"], "add --model dbn"),
    (["train", "digits", "--model", "dbn", "--pretrain", "2", "--out", "T"], "leave pretrain out"),
    (["train", "digits", "--model", "dbn", "--updown-lr", "-1", "--out", "T"], "of the up-down algorithm"),
    (["train", "digits", "--model", "dbn", "--discriminative", "2", "--out", "T"], "is a share"),
    (["train", "digits", "--model", "dbn", "--discriminative", "0.5", "--updates", "5", "--out", "T"],
     "has no labels to tell apart"),
    (["train", "digits", "--model", "dbn", "--hidden", "4,0", "--out", "T"], "numbers of hidden units"),
    (["finetune", "RUN", "--resume", "--overwrite"], "give one of them"),
    (["finetune", "RUN", "--resume", "--epochs", "50"], "leave --epochs out"),
    (["finetune", "RUN", "--resume", "--max-norm", "3"], "leave --max-norm out"),
    (["finetune", "RUN", "--overwrite", "--dropout", "1.5"], "probability of dropout"),
])  # fmt: skip
def test_bad_input_is_one_sentence(words, said: str, run, tmp_path) -> None:
    given = [w.replace("RUN", str(run)) if w != "T" else str(tmp_path / "t") for w in words]
    assert said in call(*given).sentence
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(("act", "words"), [
    (lambda: machines(gb.Bernoulli(3), []), "at least one hidden layer"),
    (lambda: classes_of(stripes(classes=3)), "have the label 3"),
    (lambda: beside(stripes(), [3, 9]), "has the label 8, which no training row has"),
    (lambda: belief_runs.load("nowhere"), "nowhere"),
])  # fmt: skip
def test_bad_arguments_are_one_sentence(act, words: str) -> None:
    with pytest.raises((TrainingError, DataError, RunError)) as found:
        act()
    assert words in str(found.value)
    assert str(found.value).endswith(".")


def test_the_example_runs(tmp_path) -> None:
    path = Path(__file__).parents[1] / "examples" / "deep_belief.py"
    spec = importlib.util.spec_from_file_location("deep_belief_example", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    errors = example.main(
        hidden=(12, 15), updates=4, epochs=1, batch=100, steps=5, out=str(tmp_path)
    )
    assert set(errors) == {"stack", "up-down", "backpropagation"}
    assert (tmp_path / "dreams.png").is_file()
    assert classifier.read(tmp_path / "classifier.safetensors").classes == tuple(range(10))


def test_a_class_that_training_never_saw_is_refused_before_anything_is_trained(tmp_path) -> None:
    data = stripes()
    assert data.test is not None and data.test.labels is not None
    data.test.labels[0] = 5
    with pytest.raises(DataError, match="A test row has the label 5"):
        belief_runs.train(data, [4, 3], labels=True, out=tmp_path / "b", **QUICK)
    assert not (tmp_path / "b").exists()


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_a_stage_that_is_lost_is_not_replaced_by_the_one_before(run, tmp_path) -> None:
    lost = copied(run, tmp_path / "lost")
    (lost / "updown" / "config.toml").unlink()
    for words in (("sample", lost, "-n", 2, "--out", tmp_path / "o.npz"), ("evaluate", lost)):
        assert "has gone through the up-down algorithm" in call(*words).sentence
    assert "has lost its config.toml" in call("train", "--resume", "--out", lost).sentence
    shutil.rmtree(lost / "updown")
    works("train", "--resume", "--out", lost)
    assert same(run, lost)


def test_a_stage_that_is_not_finished_is_told(run, tmp_path) -> None:
    half = copied(run, tmp_path / "half")
    lines = (half / "metrics.jsonl").read_text().splitlines(keepends=True)
    (half / "metrics.jsonl").write_text("".join(x for x in lines if '"updown"' not in x))
    with pytest.warns(GibbsianWarning, match="up-down stage .* is not finished"):
        belief_runs.load(half)


def test_a_configuration_that_lost_its_machines_is_one_sentence(run, tmp_path) -> None:
    broken = copied(run, tmp_path / "broken")
    config = (broken / "config.toml").read_text()
    (broken / "config.toml").write_text(config.replace("network.machines", "network.others"))
    words = ("sample", broken, "-n", 2, "--out", tmp_path / "o.npz")
    assert "has lost the machines of its network" in call(*words).sentence
