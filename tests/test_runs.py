"""Run folders: what is written can be read, by one writer at a time; each refusal is a sentence."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gibbsian import checkpoint, runs
from gibbsian.errors import GibbsianWarning, RunError, TrainingError

CONFIG = {"model": "rbm", "hidden": 500, "lr": 0.1, "train": {"seed": 3, "center": True}}


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


# --- making and opening -------------------------------------------------------------------------


def test_create_then_open(tmp_path):
    with runs.create(tmp_path / "a" / "run", CONFIG) as run:
        assert run.config == CONFIG
    assert listing(run.path) == ["checkpoints", "config.toml", "metrics.jsonl"]
    again = runs.open_run(str(run.path))
    assert again.config == CONFIG and again.path == run.path
    assert again.metrics() == [] and again.checkpoints == []


def test_config_keeps_what_toml_can_hold(tmp_path):
    given = {
        "path": Path("a/b"),
        "shape": (28, 28),
        "nothing": None,
        "nested": {"nothing": None, "deep": {"x": [1, (2.5, "three")]}},
        "numbers": [0.1, 1 / 3, 1e-320, -0.0, math.inf, 2**53 + 1, True],
        "text": 'quote " backslash \\ line \n tab \t θ ☃ \x01',
        "scalars": [np.float32(0.1), np.int64(3), torch.tensor(2.5)],
        "empty": {},
        "odd key = [x]": 1,
    }
    with runs.create(tmp_path / "run", given) as run:
        pass
    back = runs.open_run(run.path).config
    assert back == run.config
    assert back["path"] == str(Path("a/b")) and back["shape"] == [28, 28]
    assert "nothing" not in back and back["nested"] == {"deep": {"x": [1, [2.5, "three"]]}}
    assert list(map(repr, back["numbers"])) == list(map(repr, given["numbers"]))
    assert back["text"] == given["text"] and back["scalars"] == [float(np.float32(0.1)), 3, 2.5]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"train": {"fn": math.sin}}, "the setting train.fn is"),
        ({"x": [1, None]}, r"the setting x\[1\] is None"),
        ({"w": np.ones(3)}, "the setting w is"),
        ({"t": {3: 1}}, "the setting t.3 needs a name"),
    ],
)
def test_config_refuses_by_name_and_makes_nothing(config, words, tmp_path):
    with pytest.raises(TrainingError, match=words) as error:
        runs.create(tmp_path / "run", config)
    one_sentence(error)
    assert listing(tmp_path) == []


def test_an_existing_run_is_not_overwritten_unasked(tmp_path):
    with runs.create(tmp_path, CONFIG) as run:
        run.log({"step": 1})
        checkpoint.write(run.checkpoint_folder, 1, {"x": 1})
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "mine.txt").write_text("kept")
    before = listing(tmp_path)
    with pytest.raises(RunError, match="already holds a run; resume it") as error:
        runs.create(tmp_path, {"other": 1})
    one_sentence(error)
    assert listing(tmp_path) == before and runs.open_run(tmp_path).config == CONFIG

    with runs.create(tmp_path, {"other": 1}, overwrite=True) as run:
        assert run.metrics() == [] and run.checkpoints == []
    assert runs.open_run(tmp_path).config == {"other": 1}
    assert listing(tmp_path) == ["checkpoints", "config.toml", "metrics.jsonl", "mine.txt"]


@pytest.mark.parametrize("name", ["thesis.tex", "metrics.jsonl", "report.html", "checkpoints/x"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(name, overwrite, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("ten years of work")
    before = listing(tmp_path)
    with pytest.raises(RunError, match="not empty and is not a gibbsian run") as error:
        runs.create(tmp_path, CONFIG, overwrite=overwrite)
    one_sentence(error)
    assert listing(tmp_path) == before and (tmp_path / name).read_text() == "ten years of work"


def test_what_a_killed_create_left_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".lock").write_text("4711")
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.toml.4711.writing").write_text("mod")
    with runs.create(tmp_path, CONFIG):
        pass
    assert listing(tmp_path) == ["checkpoints", "config.toml", "metrics.jsonl"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=r"cannot write .*file.*Not a directory") as error:
            runs.create(path, CONFIG)
        one_sentence(error)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk(code, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match=os.strerror(code)) as error:
        runs.create(tmp_path / "run", CONFIG)
    one_sentence(error)
    assert listing(tmp_path) == ["run", "run/checkpoints"]
    monkeypatch.undo()
    with runs.create(tmp_path / "run", CONFIG) as run:
        assert run.config == CONFIG


def test_what_is_not_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=r"is not a gibbsian run: .*`gibbsian train`") as error:
            runs.open_run(path)
        assert str(path) in one_sentence(error)
    with pytest.raises(RunError, match=r"no config\.toml"):
        runs.open_run(tmp_path)


@pytest.mark.parametrize("content", [b"model = ", b"a = 1\na = 2\n", b"\xff\xfe", b"{}"])
def test_a_corrupt_config(content, tmp_path):
    (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(RunError, match=r"config\.toml is not valid TOML") as error:
        runs.open_run(tmp_path)
    one_sentence(error)


# --- metrics ------------------------------------------------------------------------------------


def test_each_record_is_there_at_once(tmp_path):
    with runs.create(tmp_path, CONFIG) as run:
        for step in range(3):
            run.log({"step": step, "error": 0.1 * step})
            assert runs.open_run(tmp_path).metrics()[-1] == {"step": step, "error": 0.1 * step}


def test_the_log_is_appended_to_and_never_rewritten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with runs.create(tmp_path, CONFIG) as run:
        run.log({"step": 1})
        inode = path.stat().st_ino
        path.write_bytes(path.read_bytes().replace(b"1", b"8"))  # a rewrite would undo this
        run.log({"step": 2})
    assert path.stat().st_ino == inode
    assert path.read_bytes() == b'{"step": 8}\n{"step": 2}\n'


def test_values_that_json_does_not_know(tmp_path):
    with runs.create(tmp_path, CONFIG) as run:
        run.log(
            {
                "step": np.int64(4),
                "loss": torch.tensor(math.nan),
                "bound": -math.inf,
                "rate": np.float32(0.1),
                "deep": {"a": [1.0, math.inf], "b": None},
                "shape": (2, 3),
            }
        )
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert run.metrics() == [
        {
            "step": 4,
            "loss": None,
            "bound": None,
            "rate": float(np.float32(0.1)),
            "deep": {"a": [1.0, None], "b": None},
            "shape": [2, 3],
            "nonfinite": ["loss", "bound", "deep.a.1"],
        }
    ]


def test_a_value_that_is_no_metric(tmp_path):
    with runs.create(tmp_path, CONFIG) as run:
        with pytest.raises(TrainingError, match="the metric weights is of type Tensor") as error:
            run.log({"step": 1, "weights": torch.ones(3)})
        assert run.metrics() == []
    one_sentence(error)


def write_metrics(folder: Path, content: bytes) -> runs.Run:
    runs.create(folder, CONFIG).close()
    (folder / "metrics.jsonl").write_bytes(content)
    return runs.open_run(folder)


def test_a_torn_last_line_is_left_out_and_then_replaced(tmp_path):
    run = write_metrics(tmp_path, b'{"step": 1}\n{"step": 2, "err')
    assert run.metrics() == [{"step": 1}]
    with run:
        run.log({"step": 2})
        run.log({"step": 3})
    assert [record["step"] for record in run.metrics()] == [1, 2, 3]


def test_a_damaged_line_is_named(tmp_path):
    run = write_metrics(tmp_path, b'{"step": 1}\n{"st\xff\n[3]\n{"step": 4}\n')
    with pytest.warns(GibbsianWarning) as warned:
        assert run.metrics() == [{"step": 1}, {"step": 4}]
    assert [str(w.message).split(" of ")[0] for w in warned] == ["line 2", "line 3"]


def test_a_full_disk_tears_no_line(tmp_path, monkeypatch):
    class Full(runs.FileIO):
        room = 10

        def write(self, content):
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            content, self.room = content[: self.room], 0
            return super().write(content)

    with runs.create(tmp_path, CONFIG) as run:
        run.log({"step": 1})
        run._close_log()
        run._log = Full(tmp_path / "metrics.jsonl", "a")
        with pytest.raises(RunError, match="free some space") as error:
            run.log({"step": 2, "error": 0.5})
        assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n'
        run._log.room = 1000
        run.log({"step": 2})
    one_sentence(error)
    assert len(run.metrics()) == 2


def test_cut_goes_back_to_a_step(tmp_path):
    content = (
        b'{"note": 1}\n{"step":1}\n{"step":  2.5}\n{"step": 3}\n{"step": null}\n{"step": 4}\n{"s'
    )
    run = write_metrics(tmp_path, content)
    for step in (1, 3, 4):
        checkpoint.write(run.checkpoint_folder, step, {"step": step})
    with run:
        run.cut(3)
        kept = b'{"note": 1}\n{"step":1}\n{"step":  2.5}\n{"step": 3}\n{"step": null}\n'
        assert (tmp_path / "metrics.jsonl").read_bytes() == kept  # to the byte
        assert run.checkpoints == [1, 3] and run.checkpoint().step == 3
        run.log({"step": 4})
        run.cut(3)
        assert (tmp_path / "metrics.jsonl").read_bytes() == kept
        run.cut(-1)
        assert run.checkpoints == []
    assert run.metrics() == [{"note": 1}, {"step": None}]


def test_a_cut_that_fails_changes_nothing(tmp_path, monkeypatch):
    content = b'{"step": 1}\n{"step": 2}\n'
    run = write_metrics(tmp_path, content)

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with run, pytest.raises(RunError, match="cannot write"):
        run.cut(1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content
    assert listing(tmp_path) == ["checkpoints", "config.toml", "metrics.jsonl"]


def test_metrics_of_a_run_without_any(tmp_path):
    (tmp_path / "config.toml").write_text("a = 1\n")
    run = runs.open_run(tmp_path)
    assert run.metrics() == []
    with run:
        run.cut(3)
        run.log({"step": 4})
    assert run.metrics() == [{"step": 4}]


# --- checkpoints --------------------------------------------------------------------------------


def test_checkpoint_by_name_and_step(tmp_path):
    with runs.create(tmp_path, CONFIG) as run:
        with pytest.raises(RunError, match="no checkpoint yet"):
            run.checkpoint()
        for step in (10, 20):
            checkpoint.write(run.checkpoint_folder, step, {"step": step})
    assert run.checkpoints == [10, 20]
    found = [run.checkpoint(which).step for which in ("latest", 10, "20")]
    assert found == [20, 10, 20] and run.checkpoint().step == 20
    for which, words in ((15, "no checkpoint of step 15"), ("best", "no checkpoint is called")):
        with pytest.raises(RunError, match=words) as error:
            run.checkpoint(which)
        one_sentence(error)


# --- the lock -----------------------------------------------------------------------------------

posix = pytest.mark.skipif(sys.platform == "win32", reason="no lock is taken on Windows")

HOLDER = """
import sys, time
from gibbsian import runs
run = runs.open_run(sys.argv[1])
run.lock()
print("held", flush=True)
time.sleep(60)
"""


@posix
def test_two_trainings_do_not_write_one_run(tmp_path):
    with runs.create(tmp_path, CONFIG):
        other = runs.open_run(tmp_path)
        for act in (
            other.lock,
            lambda: other.log({"step": 1}),
            lambda: other.cut(0),
            lambda: runs.create(tmp_path, {}, overwrite=True),
        ):
            with pytest.raises(RunError, match=f"being trained by process {os.getpid()}") as error:
                act()
            one_sentence(error)
        assert other.config == runs.open_run(tmp_path).config == CONFIG  # reading is free
    with other:
        other.log({"step": 1})
    assert not (tmp_path / ".lock").exists()


@posix
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    runs.create(tmp_path, CONFIG).close()
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == "held\n"
            run = runs.open_run(tmp_path)
            with pytest.raises(RunError, match=f"being trained by process {holder.pid};"):
                run.lock()
        finally:
            holder.send_signal(signal.SIGKILL)
    assert (tmp_path / ".lock").read_text() == str(holder.pid)  # stale, and in nobody's way
    with run:
        run.log({"step": 1})
    assert run.metrics() == [{"step": 1}] and not (tmp_path / ".lock").exists()


@posix
def test_a_lock_file_removed_while_we_wait_is_not_ours(tmp_path, monkeypatch):
    """The owner may remove the file between our opening and locking it: we must try again."""
    from gibbsian import lock

    runs.create(tmp_path, CONFIG).close()
    take, calls = lock._take, []

    def late(file):
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()
        return take(file)

    monkeypatch.setattr(lock, "_take", late)
    with runs.open_run(tmp_path) as run:
        run.lock()
        assert len(calls) == 2
        with pytest.raises(RunError, match="being trained"):
            runs.open_run(tmp_path).lock()


def test_a_failed_create_gives_the_lock_back(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError):
        runs.create(tmp_path, CONFIG)
    monkeypatch.undo()
    assert not (tmp_path / ".lock").exists()
    with runs.create(tmp_path, CONFIG):
        pass


def test_temporary_files_of_a_killed_writer_go_when_the_next_one_starts(tmp_path):
    run = write_metrics(tmp_path, b"")
    (tmp_path / ".metrics.jsonl.4711.writing").write_text("{")
    with run:
        run.lock()
    assert listing(tmp_path) == ["checkpoints", "config.toml", "metrics.jsonl"]


def test_repr_and_lines_are_plain_json(tmp_path):
    with runs.create(tmp_path, CONFIG) as run:
        run.log({"step": 1, "words": "θ\n"})
    assert repr(run) == f"Run({str(tmp_path)!r})"
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "words": "θ\n"}
