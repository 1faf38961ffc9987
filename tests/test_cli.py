"""The command line does what it says: every command, its files, seeds, and the runs it leaves."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call, works
from PIL import Image

import gibbsian as gb
from gibbsian import checkpoint, recipes, runs
from gibbsian.cli import study as study_command
from gibbsian.training import Trainer

SMALL = ("--hidden", 4, "--updates", 40, "--limit", 120)
FIXED = (*SMALL, "--transform", "threshold", "--keep-last", 20)  # rows that no seed draws anew
QUICK = ("--temperatures", 20, "--chains", 10, "--mixing-steps", 20)
COMMANDS = ("train", "sample", "evaluate", "reconstruct", "report", "info", "study", "demo")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch) -> None:
    """Run where defaults such as ./samples.npz do no harm."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small run on digits, with all of its checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    works("train", "digits", *FIXED, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def grey(tmp_path_factory) -> Path:
    """A run on real values, by unadjusted Langevin moves."""
    folder = tmp_path_factory.mktemp("runs") / "grey"
    options = "--sampler gibbs-langevin --sampler-option size=0.05 --sampler-option moves=2"
    works("train", "digits", "--model", "gaussian-rbm", *SMALL, *options.split(), "--out", folder)
    return folder


def newest(folder: Path) -> str:
    """The name of the newest tensors, which holds their checksum."""
    return sorted(p.name for p in (folder / "checkpoints").glob("*.safetensors"))[-1]


def records(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in found:
        del record["time"]
    return found


def strict(text: str) -> dict:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


# --- help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_nothing_that_markup_ate(command, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = works(command, "--help").out
    assert f"gibbsian {command}" in text.split("Example")[-1]
    assert " . " not in text  # what "cd or pcd [pcd]." becomes once "[pcd]" counts as markup
    assert "\\" not in text
    if command == "train":
        assert "cd, pcd, fpcd, jarzynski or ptt. [default: pcd]" in text
        assert all(name in text for name in recipes.RECIPES)


def test_without_a_command_help_comes_and_the_exit_code_says_so() -> None:
    found = call()
    assert found.code == 2
    assert all(name in found.out for name in COMMANDS)


def test_version() -> None:
    assert works("--version").out.startswith("gibbsian 0.")


def test_python_m_gibbsian_is_the_command_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "gibbsian", "trian"], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert found.stderr.startswith("gibbsian: No such command 'trian'")
    assert len(found.stderr.splitlines()) == 1


# --- train ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", list(recipes.RECIPES))
def test_every_model_trains_samples_and_is_evaluated(model, tmp_path) -> None:
    out = tmp_path / "run"
    # One-of-K columns need a training row for each of their categories, so all rows there are.
    found = works("train", "digits", "--model", model, "--hidden", 4, "--updates", 8, "--out", out)
    assert "Trained 8 updates" in found.out
    works("sample", out, "-n", 3, "--steps", 2, "--out", "x.png")
    works("sample", out, "-n", 3, "--steps", 2)
    arrays = np.load("samples.npz")
    assert arrays["original"].shape == (3, 64)
    table = strict(works("evaluate", out, *QUICK, "--json").out)
    believed = table["log_z"]["believed"]
    assert believed is None or believed["low"] <= believed["value"] <= believed["high"]
    assert table["log_z"]["ladder"]["chains"] == 10 and "ladder" in str(table["test"])
    assert not table["certificate"]["granted"] and table["verdict"]["status"] != "good"
    assert math.isfinite(table["test"]["log_likelihood"]["ais"])
    works("reconstruct", out, "--flip", 0.1)
    works("reconstruct", out, "--hide-rows", "2:4", "--steps", 5)
    assert Image.open(out / "inpainting.png").size[0] > 100


def test_all_options_reach_the_run(tmp_path) -> None:
    works(
        "train", "digits", "--hidden", 5, "--method", "cd", "--steps", 2, "--batch-size", 20,
        "--updates", 30, "--lr", 0.002, "--optimizer", "adam", "--optimizer-option", "eps=1e-6",
        "--optimizer-option", "amsgrad=true", "--schedule", "power", "--schedule-option",
        "coefficient=0.1", "--l1", 1e-4, "--l2", 1e-3, "--prior-scale", 0.5, "--no-center",
        "--average", 0.9,
        "--weights", "pca", "--visible-bias", -1, "--hidden-bias", -0.5, "--classes", "1,3",
        "--limit", 90, "--transform", "scale,threshold", "--validation", 0.2, "--test", 40,
        "--seed", 7, "--device", "cpu", "--threads", 1, "--log-every", 6, "--checkpoint-every", 5,
        "--keep-last", 1, "--keep-every", 10, "--patience", 9, "--tolerance", 1e-3, "--quiet",
        "--out", "run",
    )  # fmt: skip
    config = runs.open_run("run").config
    assert config["method"] == {"kind": "cd", "steps": 2}
    spec = config["data"]["spec"]
    wanted = {"classes": [1, 3], "limit": 90, "validation": 0.2, "test": 40, "seed": 7}
    assert {k: spec[k] for k in wanted} == wanted
    assert [step.partition(":")[0] for step in spec["transform"]] == ["scale", "threshold"]
    training = config["training"]
    wanted = {
        "batch_size": 20, "updates": 30, "lr": 0.002, "optimizer": "adam", "schedule": "power",
        "optimizer_options": {"eps": 1e-6, "amsgrad": True}, "l1": 1e-4, "l2": 1e-3,
        "prior_scale": 0.5, "schedule_options": {"coefficient": 0.1}, "center": False,
        "average": 0.9, "weights": "pca",
        "biases": {"0": -1.0, "1": -0.5}, "seed": 7, "device": "cpu", "threads": 1, "log_every": 6,
        "checkpoint_every": 5, "keep_last": 1, "keep_every": 10, "patience": 9, "tolerance": 1e-3,
    }  # fmt: skip
    assert {k: training[k] for k in wanted} == wanted
    assert runs.open_run("run").checkpoints == [0, 10, 20, 30]
    assert [r["step"] for r in records(Path("run"))] == [6, 12, 18, 24, 30]


def test_the_options_of_a_sampler_reach_the_run(grey) -> None:
    method = runs.open_run(grey).config["method"]
    assert method["sampler"] == "gibbs-langevin"
    assert method["sampler_options"] == {"size": 0.05, "moves": 2}
    Path("o.toml").write_text('sampler = "driven"\n[sampler-option]\nstd = 0.1\nsteps = 20\n')
    works("train", "digits", *SMALL, "--config", "o.toml", "--out", "run")
    method = runs.open_run("run").config["method"]
    assert method["sampler_options"] == {"std": 0.1, "steps": 20}


def test_names_and_options_of_samplers_are_those_of_the_library() -> None:
    """The command line lists them without PyTorch, so that help comes at once."""
    from gibbsian.cli import configuration, options, sample
    from gibbsian.estimators import named
    from gibbsian.samplers import options as library

    assert configuration._SAMPLERS == named.NAMES
    assert {*library._MADE, "annealed"} == set(sample._SAMPLERS)
    for name in library._MADE:
        with pytest.raises(gb.GibbsianError) as known:
            library.check(name, {"x": 1})
        for key in re.findall(r"(\w+) \(", str(known.value)):
            assert re.search(rf"\b{key}\b", options.SAMPLER_OPTIONS)


def test_epochs_are_passes_over_the_data() -> None:
    works("train", "digits", "--hidden", 2, "--limit", 120, "--batch-size", 40, "--epochs", 3,
          "--log-epochs", 1, "--out", "run")  # fmt: skip
    assert runs.open_run("run").checkpoints[-1] == 9
    assert [r["step"] for r in records(Path("run"))] == [3, 6, 9]


def test_a_config_file_gives_options_and_the_command_line_wins() -> None:
    Path("o.toml").write_text(
        'data = "digits"\nhidden = 3\nbatch-size = 20\nupdates = 50\nlimit = 60\n'
        'classes = [1, 2]\nvalidation = 0.3\noptimizer = "sgd"\n[optimizer-option]\nmomentum = 0.5\n'
    )
    works("train", "--config", "o.toml", "--hidden", 4, "--epochs", 2, "--out", "run")
    config = runs.open_run("run").config
    assert config["machine"]["units"][1]["size"] == 4
    assert config["training"]["epochs"] == 2
    assert "updates" not in config["training"]
    assert config["training"]["optimizer_options"] == {"momentum": 0.5}
    assert config["data"]["spec"]["classes"] == [1, 2]


def test_the_config_of_a_run_repeats_it(run) -> None:
    works("train", "--config", run / "config.toml", "--out", "again")
    assert newest(Path("again")) == newest(run)
    assert records(Path("again")) == records(run)


def test_one_class_is_all_that_a_machine_sees() -> None:
    works("train", "digits", "--classes", 4, "--hidden", 2, "--updates", 5, "--out", "run")
    table = strict(works("evaluate", "run", *QUICK, "--json").out)
    rows = sum(table[split]["rows"] for split in ("train", "validation", "test"))
    assert rows == 181  # scikit-learn's digits hold so many fours


def test_mixed_columns_of_a_table(tmp_path) -> None:
    rng = np.random.default_rng(0)
    lines = ["age,smokes,colour,kind"]
    for _ in range(80):
        colour, kind = rng.choice(["red", "green", "blue"]), rng.choice(["cat", "dog"])
        lines.append(f"{rng.normal():.3f},{rng.integers(2)},{colour},{kind}")
    Path("t.csv").write_text("\n".join(lines))
    works("train", "t.csv", "--labels", "kind", "--classes", "cat", "--hidden", 3, "--updates", 20,
          "--batch-size", 10, "--out", "run")  # fmt: skip
    works("sample", "run", "-n", 5, "--steps", 3)
    assert np.load("samples.npz")["original"].shape == (5, 3)
    works("evaluate", "run", *QUICK)
    works("reconstruct", "run", "--flip", 0.2)
    assert Path(works("report", "run", *QUICK).out.split("Wrote ")[-1].strip()).exists()


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "parquet"])
def test_files_of_every_kind(ending) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((90, 6)) < 0.4).astype(np.float32)
    file, more = Path(f"x.{ending}"), ()
    if ending == "npy":
        np.save(file, x)
    elif ending == "npz":
        np.savez(file, rows=x, other=x[:, 0])
        more = ("--key", "rows")
    elif ending == "h5":
        import h5py

        with h5py.File(file, "w") as store:
            store["a/rows"] = x
        more = ("--key", "a/rows")
    else:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({f"c{i}": x[:, i] for i in range(6)})
        pyarrow.parquet.write_table(table, file)
    works("train", file, *more, "--hidden", 2, "--updates", 5, "--out", "run")
    works("sample", "run", "--start", "data", "--steps", 0)
    assert {tuple(row) for row in np.load("samples.npz")["samples"]} <= {tuple(row) for row in x}


def test_a_test_file_is_what_tests_are_made_of() -> None:
    """Named defect: a CLI whose --test_dataset reads the training file."""
    rng = np.random.default_rng(0)
    np.save("train.npy", (rng.random((80, 6)) < 0.5).astype(np.float32) * [1, 1, 1, 1, 1, 0])
    np.save("test.npy", np.tile([1.0, 0, 1, 0, 1, 1], (30, 1)))
    np.save("validation.npy", np.tile([0.0, 1, 1, 0, 1, 1], (20, 1)))
    works("train", "train.npy", "--test", "test.npy", "--validation", "validation.npy", "--hidden",
          2, "--updates", 5, "--out", "run")  # fmt: skip
    works("sample", "run", "--start", "test", "--steps", 0, "-n", 40)
    assert (np.load("samples.npz")["samples"] == [1, 0, 1, 0, 1, 1]).all()
    works("sample", "run", "--start", "data", "--steps", 0, "-n", 40)
    assert not np.load("samples.npz")["samples"][:, 5].any()
    table = strict(works("evaluate", "run", *QUICK, "--json").out)
    assert [table[k]["rows"] for k in ("train", "validation", "test")] == [80, 20, 30]


def test_metrics_are_appended_and_never_rewritten(monkeypatch) -> None:
    """Named defect: a log that is rewritten whole at every step."""
    written = []

    def publish(files):
        written.extend(path.name for path in files)
        return real(files)

    real = checkpoint.publish
    monkeypatch.setattr(checkpoint, "publish", publish)
    works("train", "digits", *SMALL, "--log-every", 1, "--out", "run")
    assert written.count("metrics.jsonl") == 1  # the empty file of a new run
    assert len(records(Path("run"))) == 40


def test_tensorboard(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    works("train", "digits", *SMALL, "--tensorboard", tmp_path / "tb", "--out", "run")
    found = EventAccumulator(str(tmp_path / "tb")).Reload().Tags()
    assert "reconstruction_error/train" in found["scalars"]
    assert "filters" in found["images"]


# --- seeds ------------------------------------------------------------------------------------


def test_the_seed_changes_training_and_the_same_one_repeats_it(run) -> None:
    """Named defect: a --seed that changes nothing."""
    for seed in (0, 1):
        works("train", "digits", *FIXED, "--seed", seed, "--out", f"s{seed}")
    assert newest(Path("s0")) == newest(run)
    assert newest(Path("s1")) != newest(run)


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "--steps", 3, "-n", 5),
        ("sample", "--steps", 3, "-n", 5, "--start", "test"),
        ("sample", "--steps", 3, "-n", 5, "--start", "reference"),
        ("evaluate", *QUICK, "--json"),
        ("reconstruct", "--flip", 0.2),
        ("reconstruct", "--hide-cols", "3:6", "--steps", 5),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_the_seed_changes_results_and_the_same_one_repeats_them(words, run) -> None:
    def result(seed: int) -> str:
        out = works(words[0], run, *words[1:], "--seed", seed).out
        if words[0] == "sample":
            return str(np.load("samples.npz")["samples"].tolist())
        return out

    first = result(0)
    assert result(0) == first
    assert result(1) != first


# --- sample, evaluate, reconstruct, report, info -----------------------------------------------


def test_samples_are_states_and_means_are_not(run) -> None:
    works("sample", run, "-n", 7, "--steps", 3)
    arrays = np.load("samples.npz")
    assert arrays["samples"].shape == arrays["means"].shape == (7, 64)
    assert set(np.unique(arrays["samples"])) == {0, 1}
    assert 0 < arrays["means"].mean() < 1
    assert len(np.unique(arrays["means"])) > 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sampler", "tempering", "--levels", 3, "--start", "test"), "after 4 steps from test"),
        (("--sampler", "tempering"), "after 4 steps from noise"),
        (("--sampler", "annealed"), "annealed over 4 temperatures"),
        (("--sampler", "transitions", "--levels", 3), "after 4 steps from noise"),
        (("--sampler", "driven"), "after 4 steps from noise"),
        (
            ("--sampler", "rates", "--sampler-option", "statistics=sampled"),
            "after 4 steps from noise",
        ),
    ],
)
def test_other_samplers_by_name(run, words, told) -> None:
    found = works("sample", run, "-n", 7, "--steps", 4, *words)
    assert f"Wrote 7 samples {told} to" in found.out
    arrays = np.load("samples.npz")
    assert arrays["samples"].shape == arrays["means"].shape == (7, 64)
    assert set(np.unique(arrays["samples"])) == {0, 1}
    works("sample", run, "-n", 7, "--steps", 4, *words)
    assert (np.load("samples.npz")["samples"] == arrays["samples"]).all()


KERNELS = {
    "driven std=0": lambda run: gb.Driven(0, steps=4),
    "driven steps=0": lambda run: gb.Gibbs(),
    "tempering sweeps=3": lambda run: gb.Tempering(run.reference, 3, sweeps=3),
    "transitions sweeps=3": lambda run: gb.TemperedTransitions(run.reference, 3, sweeps=3),
    "langevin size=0.3": lambda run: gb.Langevin(0.3),
    "langevin adjusted=false": lambda run: gb.Langevin(adjusted=False),
    "gibbs-langevin moves=4": lambda run: gb.Langevin(adjusted=False, hidden="sampled", moves=4),
}


@pytest.mark.parametrize("words", KERNELS)
def test_an_option_of_a_sampler_is_an_argument_of_its_class(words, run, request) -> None:
    sampler, option = words.split()
    if "langevin" in sampler:
        run = request.getfixturevalue("grey")
    levels = ("--levels", 3) if sampler in ("tempering", "transitions") else ()
    options = ("--sampler", sampler, "--sampler-option", option, *levels)
    works("sample", run, "-n", 7, "--steps", 5, *options)
    found, trained = np.load("samples.npz")["samples"], gb.load(run)
    drawn = gb.sample(trained.machine, 7, 5, generator=0, sampler=KERNELS[words](trained))
    assert np.array_equal(found, drawn.samples.numpy())
    works("sample", run, "-n", 7, "--steps", 5, *options[:2], *levels)
    assert not np.array_equal(found, np.load("samples.npz")["samples"])


def test_ladders_that_nothing_has_climbed_are_told(run) -> None:
    found = works("sample", run, "-n", 7, "--steps", 1, "--sampler", "tempering", "--levels", 6)
    (note,) = found.notes
    assert "7 of 7 chains saw no round trip" in note and note.endswith("take more steps.")
    assert works("sample", run, "-n", 7, "--steps", 1).notes == []


def test_pictures_and_films(run) -> None:
    works("sample", run, "-n", 6, "--steps", 200, "--start", "test", "--out", "new/walk.gif")
    film = Image.open("new/walk.gif")
    assert film.format == "GIF"
    assert film.n_frames > 20
    works("sample", run, "-n", 6, "--steps", 0, "--out", "still.gif")
    for more in ((), ("--means",)):
        works("sample", run, "-n", 6, "--steps", 2, *more, "--out", f"x{len(more)}.PNG")
    plain, means = (np.asarray(Image.open(f"x{i}.PNG").convert("L")) for i in (0, 1))
    assert len(np.unique(means)) > len(np.unique(plain))


def test_a_checkpoint_by_its_number(run) -> None:
    assert runs.open_run(run).checkpoints == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]

    def means(which: object) -> np.ndarray:
        works("sample", run, "--checkpoint", which, "--steps", 1, "-n", 2)
        return np.load("samples.npz")["means"]

    assert np.array_equal(means("latest"), means(40))
    assert not np.array_equal(means(40), means(4))


def test_samples_need_no_data() -> None:
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal([40, -3], [9, 0.1], (60, 2)).astype(np.float32))
    works(
        "train", "x.npy", "--model", "gaussian-rbm", "--hidden", 2, "--updates", 5, "--out", "run"
    )
    Path("x.npy").unlink()
    works("sample", "run", "-n", 300, "--steps", 20)
    assert np.load("samples.npz")["original"].mean(axis=0) == pytest.approx([40, -3], abs=3)


def test_samples_lose_the_noise_that_the_data_were_given() -> None:
    options = "--transform standardise-global+dequantise:0.7 --updates 40 --hidden 9 --out grey"
    works("train", "digits", "--model", "gaussian-rbm", *options.split())
    trained = gb.load(Path("grey"))

    def drawn(*more: str) -> np.lib.npyio.NpzFile:
        works("sample", "grey", "-n", 8, "--steps", 3, *more)
        return np.load("samples.npz")

    clean, noisy = drawn(), drawn("--noisy")
    samples = torch.from_numpy(clean["samples"])
    assert np.array_equal(clean["samples"], noisy["samples"])
    back = trained.transform.inverse
    assert np.allclose(noisy["original"], back(samples).numpy())
    assert np.allclose(clean["original"], back(gb.remove_noise(trained, samples)).numpy())
    assert np.abs(clean["original"] - noisy["original"]).mean() > 0.05
    works("sample", "grey", "-n", 8, "--steps", 3, "--out", "clean.png")
    works("sample", "grey", "-n", 8, "--steps", 3, "--out", "noisy.png", "--noisy")
    assert Path("clean.png").read_bytes() != Path("noisy.png").read_bytes()
    works("sample", "grey", "-n", 8, "--steps", 3, "--out", "walk.gif")
    works("reconstruct", "grey", "--hide-rows", "3:5", "--rows", 20, "--steps", 5)


def test_evaluate_prints_nothing_but_json_and_all_of_its_keys(run) -> None:
    found = works("evaluate", run, *QUICK, "--json")
    table = strict(found.out)
    for split in ("train", "validation", "test"):
        likelihood = table[split]["log_likelihood"]
        for key in ("ais", "reverse_ais", "gap", "ess"):
            assert math.isfinite(likelihood[key]), (split, key)
        assert likelihood["gap"] == pytest.approx(likelihood["ais"] - likelihood["reverse_ais"])
        assert table[split]["pseudo_likelihood"] < 0
        assert table[split]["reconstruction_error"] > 0
    assert table["verdict"]["status"] in ("good", "doubtful", "bad")


def test_evaluate_prints_a_table_and_a_verdict(run) -> None:
    text = works("evaluate", run, *QUICK).out
    for word in ("AIS (optimistic)", "reverse AIS (pessimistic)", "gap", "pseudo-likelihood",
                 "squared error", "train", "validation", "test", "120 rows"):  # fmt: skip
        assert word in text
    table = strict(works("evaluate", run, *QUICK, "--json").out)
    assert f"{table['test']['log_likelihood']['ais']:.2f}" in text
    assert table["verdict"]["headline"] in text


def test_evaluating_a_few_rows(run) -> None:
    table = strict(works("evaluate", run, *QUICK, "--rows", 9, "--json").out)
    assert table["train"]["rows"] == table["test"]["rows"] == 9


def test_a_run_without_held_out_rows() -> None:
    works("train", "digits", *SMALL, "--validation", 0, "--test", 0, "--out", "run")
    table = strict(works("evaluate", "run", *QUICK, "--json").out)
    assert "train" in table
    assert not {"validation", "test"} & set(table)
    works("report", "run", *QUICK)


def test_reconstruct_says_what_was_damaged_and_what_is_left(run) -> None:
    found = works("reconstruct", run, "--flip", 0.25, "--out", "new/d.png")
    words = found.out.replace("\n", " ").split()
    before = float(words[words.index("before") + 1])
    assert 0.2 < before < 0.3
    assert Image.open("new/d.png").format == "PNG"
    found = works("reconstruct", run, "--flip", 0, "--split", "validation", "--rows", 11)
    assert "11 validation rows" in found.out
    assert "before 0.0000" in found.out


def test_report_is_one_page_beside_its_pictures(run) -> None:
    found = works("report", run, *QUICK, "--out", "there")
    page = Path("there/report.html").read_text()
    assert "there/report.html" in found.out
    assert "<img" in page
    assert 'src="http' not in page
    assert {"report.html", "evaluation.json"} <= {p.name for p in Path("there").iterdir()}
    strict(Path("there/evaluation.json").read_text())
    assert not (run / "report.html").exists()


def test_info_tells_what_a_run_is(run) -> None:
    text = works("info", run).out
    for word in ("Bernoulli(size=64) - Bernoulli(size=4)", "source=digits", "kind=pcd",
                 "updates=40", "4, 8, 12", "reconstruction_error"):  # fmt: skip
        assert word in text
    table = strict(works("info", run, "--json").out)
    assert table["checkpoints"][-1] == 40
    assert table["config"]["method"]["kind"] == "pcd"
    assert table["metrics"]["step"] == 40
    table = strict(works("info", run, "--json", "--checkpoint", 8).out)
    assert table["metrics"]["step"] == 8


# --- study and demo ---------------------------------------------------------------------------


def test_study_sets_sizes_against_epochs() -> None:
    found = works("study", "digits", "--hidden", "12,2", "--epochs", 4, "--batch-size", 10, "--lr",
                  0.3, "--limit", 800, "--out", "new/study")  # fmt: skip
    table = strict(Path("new/study/study.json").read_text())
    curves = {
        n: [r["exact_pseudo_likelihood"]["validation"] for r in records]
        for n, records in table.items()
    }
    assert {n: len(c) for n, c in curves.items()} == {"2": 4, "12": 4}
    assert [r["epoch"] for r in table["2"]] == [1, 2, 3, 4]
    # Exact values of fixed rows rise; one random bit a row would hide that in its noise.
    assert all(c[0] < c[1] < c[2] < c[3] for c in curves.values())
    assert curves["12"][-1] > curves["2"][-1]
    assert f"{curves['12'][-1]:.2f}" in found.out
    assert Image.open("new/study/study.png").size[0] > 300


@pytest.mark.parametrize("model", ["gaussian-rbm", "softmax-rbm", "hopfield"])
def test_study_of_other_models(model) -> None:
    works("study", "digits", "--model", model, "--hidden", "2", "--epochs", 1, "--method", "cd")
    (record,) = strict(Path("study/study.json").read_text())["2"]
    assert math.isfinite(record["exact_pseudo_likelihood"]["train"])


def test_a_study_that_is_stopped_keeps_what_it_has(monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    real = checkpoint.publish
    calls = []

    def publish(files):
        real(files)
        calls.append(files)
        if len(calls) == 2:
            stop()

    assert study_command.NAME == "study"
    monkeypatch.setattr(checkpoint, "publish", publish)
    found = call("study", "digits", "--hidden", "2,3,4", "--epochs", 1, "--limit", 100)
    assert found.code == 130
    assert set(strict(Path("study/study.json").read_text())) == {"2", "3"}


def test_demo_ends_in_a_report_and_can_be_repeated() -> None:
    works("train", "digits", *SMALL, "--out", "runs/demo")  # stands for the demo of another day
    found = works("demo", "--updates", 30, "--temperatures", 20, "--mixing-steps", 20)
    assert "runs/demo/report.html" in found.out
    assert Path("runs/demo/report.html").exists()
    assert runs.open_run("runs/demo").config["training"]["updates"] == 30


# --- stopping and going on --------------------------------------------------------------------


def test_ctrl_c_in_the_middle_of_an_update_loses_nothing(monkeypatch) -> None:
    works("train", "digits", *SMALL, "--log-every", 7, "--out", "whole")
    real = Trainer._update

    def interrupted(self, x, weights):
        if self.step == 13:  # so the 14th update, after which metrics are due
            os.kill(os.getpid(), signal.SIGINT)
        real(self, x, weights)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        found = call("train", "digits", *SMALL, "--log-every", 7, "--out", "run")
    assert found.code == 130
    assert "--resume" in found.sentence
    assert runs.open_run("run").checkpoints[-1] == 14
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    works("train", "--resume", "--out", "run")
    assert newest(Path("run")).split("-")[:2] == newest(Path("whole")).split("-")[:2]
    assert records(Path("run")) == records(Path("whole"))
    for name in ("machine", "average"):
        a, b = (runs.open_run(p).checkpoint().tree[name] for p in ("run", "whole"))
        assert all(torch.equal(a[k], b[k]) for k in a)


LONG = ("train", "digits", "--hidden", "4", "--updates", "600", "--limit", "120", "--log-every",
        "50", "--checkpoint-every", "30")  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run of `LONG`, uninterrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    works(*LONG, "--out", folder)
    return folder


def _until_checkpoints(process: subprocess.Popen, folder: Path) -> None:
    for _ in range(1500):
        if len(list((folder / "checkpoints").glob("*.json"))) >= 3 or process.poll() is not None:
            return
        time.sleep(0.02)
    raise AssertionError("no checkpoint came within half a minute")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_process_that_was_stopped_goes_on_as_if_nothing_was(
    number, code, whole, tmp_path
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "gibbsian", *LONG, "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _until_checkpoints(process, out)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert len(err.splitlines()) == (1 if number == signal.SIGINT else 0)
    assert runs.open_run(out).checkpoints[-1] < 600
    works("train", "--resume", "--out", out)
    assert newest(out) == newest(whole)
    assert records(out) == records(whole)


def test_resuming_a_finished_run_changes_nothing(run) -> None:
    before = newest(run), records(run)
    assert "Trained 40 updates" in works("train", "--resume", "--out", run).out
    assert (newest(run), records(run)) == before


def test_resume_goes_back_to_a_checkpoint_and_repeats_what_came_after(tmp_path) -> None:
    run = tmp_path / "run"
    options = ["--hidden", "4", "--updates", "40", "--checkpoint-every", "10", "--keep-last", "9"]
    works("train", "digits", *options, "--out", str(run), "-q")
    before = gb.load(run).machine.joints[0].weight
    works("train", "--resume", "--checkpoint", "20", "--out", str(run), "-q")
    again = gb.load(run)
    assert again.step == 40
    assert bool((again.machine.joints[0].weight == before).all())
    assert [r["step"] for r in again.history] == sorted({r["step"] for r in again.history})
    assert "--resume" in call("train", "digits", "--checkpoint", "20").sentence
    assert (
        "checkpoint" in call("train", "--resume", "--checkpoint", "21", "--out", str(run)).sentence
    )
