"""What happens besides the updates: the bar, TensorBoard, records at epochs, and who is told."""

import importlib.util

import numpy as np
import pytest
import torch

import gibbsian as gb
from gibbsian.callbacks import Callback, ProgressBar
from gibbsian.finite import Finite
from gibbsian.training import Trainer


def train(machine=None, data=None, **options) -> gb.Trained:
    options = {"updates": 20, "batch_size": 20, "progress": False} | options
    data = gb.data.load("digits", limit=100) if data is None else data
    return gb.train(machine or gb.rbm(64, 5), data, **options)


def test_the_bar_shows_the_time_left_and_every_metric(capsys, monkeypatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "220")
    train(progress=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown
    for word in (
        "reconstruction",
        "cross-entropy",
        "pseudo-likelihood",
        "free-energy gap",
        "weights",
    ):
        assert word in shown, word
    assert " / " in shown  # training and validation rows


def test_the_bar_is_silent_where_nobody_looks(capsys) -> None:
    train(progress=True)
    assert "\x1b" not in capsys.readouterr().err


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_tensorboard_gets_pictures_of_samples_from_a_method_without_chains(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    quiet = train(method=gb.CD(), log_every=10)
    watched = train(method=gb.CD(), log_every=10, tensorboard=tmp_path)
    assert {"samples", "filters"} <= set(events(tmp_path).Tags()["images"])
    assert torch.equal(quiet.last.joints[0].weight, watched.last.joints[0].weight)


def test_tensorboard_of_pixels_that_take_several_columns(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    rows = (np.random.default_rng(0).random((60, 4, 4)) < 0.5).astype(np.uint8) * 255
    data = gb.data.load(rows, transform=["threshold", "one-hot"])
    train(gb.softmax_rbm(16, 2, 3), data, tensorboard=tmp_path)
    assert set(events(tmp_path).Tags()["images"]) == {"samples"}  # 32 columns are no 4 × 4 filter


def test_tensorboard_of_a_resumed_run_has_each_record_once(tmp_path) -> None:
    pytest.importorskip("tensorboard")

    class StopAt(Callback):
        def on_update(self, trainer: Trainer) -> None:
            if trainer.step == 17:
                raise RuntimeError("killed")

    options = {"log_every": 4, "checkpoint_every": 10, "tensorboard": tmp_path / "board"}
    with pytest.raises(RuntimeError, match="killed"):
        train(out=tmp_path / "run", callbacks=[StopAt()], **options)
    gb.resume(tmp_path / "run", progress=False, tensorboard=tmp_path / "board")
    found = events(tmp_path / "board").Scalars("weight_norm")
    assert [e.step for e in found] == [4, 8, 12, 16, 20]


def test_tensorboard_that_is_missing_or_cannot_write(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(gb.TrainingError, match="cannot be written"):
        train(tensorboard=tmp_path / "file" / "board")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "gibbsian.callbacks.find_spec", lambda name: None if name == "tensorboard" else real(name)
    )
    with pytest.raises(gb.TrainingError, match=r"pip install 'gibbsian\[tensorboard\]'"):
        train(tensorboard=tmp_path / "board")


def test_records_come_every_so_many_epochs() -> None:
    result = train(updates=None, epochs=6, log_epochs=2)
    assert [r["epoch"] for r in result.history] == [2, 4, 6]


class Fails(Callback):
    def on_start(self, trainer: Trainer) -> None:
        raise RuntimeError("the first one failed")


class Started(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_start(self, trainer: Trainer) -> None:
        self.calls.append("start")

    def on_end(self, trainer: Trainer) -> None:
        self.calls.append("end")


def test_only_callbacks_that_started_are_ended() -> None:
    before, after = Started(), Started()
    with pytest.raises(RuntimeError, match="the first one failed"):
        train(callbacks=[before, Fails(), after, ProgressBar()])
    assert before.calls == ["start", "end"]
    assert after.calls == []


def test_a_gradient_that_is_not_finite_is_remembered_with_its_first_update() -> None:
    good, bad = torch.ones(3, 2), torch.tensor([[0.0, torch.nan], [1, 1], [1, 1]])
    for every in (1, 4):  # a GPU is asked now and then only
        watch = Finite(["a", "b"], torch.device("cpu"))
        watch.every = every
        for step in range(1, 9):
            watch.note({"a": bad if step >= 7 else good, "b": bad if step == 6 else good}, step)
        assert watch.found() == ("b", 6)
    clean = Finite(["a"], torch.device("cpu"))
    clean.note({"a": good}, 1)
    assert clean.found() is None


@pytest.mark.parametrize("every", [1, 32])
def test_couplings_of_a_machine_with_fixed_hidden_units_are_watched_too(every, tmp_path) -> None:
    """No learned bias of a Hopfield machine sees a broken coupling: bits of it are 0 all the same."""

    class Poison(Callback):
        def on_start(self, trainer: Trainer) -> None:
            trainer._finite.every = every

        def on_update(self, trainer: Trainer) -> None:
            if trainer.step == 13:
                with torch.no_grad():
                    trainer.machine.joints[0].weight[0, 0] = torch.nan

    with pytest.raises(gb.TrainingError, match=r"connections\.0\.weight .* at update 14;"):
        train(gb.hopfield(64, 3), callbacks=[Poison()], out=tmp_path / "run", log_every=18,
              checkpoint_every=10)  # fmt: skip
    assert gb.load(tmp_path / "run").step == 10


def test_a_machine_that_had_to_be_kept_proper_says_so() -> None:
    rows = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(1, 6)
    data = gb.data.load(rows, transform="identity")
    with pytest.warns(gb.GibbsianWarning, match="at update .* held back") as caught:
        train(gb.layered(gb.Gaussian(6), gb.Gaussian(3)), data, updates=60, lr=0.3)
    assert sum("held back" in str(w.message) for w in caught) == 1
