"""The benchmark of deep belief networks at a tiny size: its commands, and going on after the minutes."""

import json
import signal
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():  # an installed copy of the tests has none
    pytest.skip("there are no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from benchmarks import deep_belief  # noqa: E402
from gibbsian import runs  # noqa: E402
from gibbsian.belief import runs as belief_runs  # noqa: E402
from gibbsian.training import Trainer  # noqa: E402

TINY = (
    "--data", "digits", "--hidden", "30,20", "--features", "30", "--updates", "200", "--lr", "3",
    "--epochs", "3", "--dropout", "0", "--input-dropout", "0", "--tune-lr", "0.02", "--strengths", "1",
    "100", "--iterations", "1000", "--steps", "20", "--precision", "fp32", "--threads", "1",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _signals():
    """Give back the handlers that the benchmark takes."""
    taken = (signal.SIGINT, signal.SIGALRM)
    before = [signal.getsignal(s) for s in taken]
    yield
    for s, handler in zip(taken, before, strict=True):
        signal.signal(s, handler)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run all commands; the first is interrupted in its second machine, and given again."""
    out, steps = tmp_path_factory.mktemp("deep-belief"), []
    update = Trainer._update

    def watched(self, x, weights):
        steps.append((Path(str(self.run.path)).name, self.step))
        if len(steps) == 230:
            signal.raise_signal(signal.SIGALRM)  # as the clock does when the minutes are over
        return update(self, x, weights)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "_update", watched)
        with pytest.raises(SystemExit, match="the same command goes on"):
            deep_belief.main(["updown", *TINY, "--out", str(out)])
        assert not (out / "updown.json").exists()
        before = len(steps)
        deep_belief.main(["updown", *TINY, "--out", str(out)])
    for command in ("finetune", "features", "classes"):
        deep_belief.main([command, *TINY, "--out", str(out)])
    found = {p.stem: json.loads(p.read_text()) for p in out.glob("*.json")}
    return out, found, steps[:before], steps[before:]


def test_it_goes_on_where_the_minutes_ended(done) -> None:
    _, found, first, second = done
    assert first[-1] == ("2", 29)
    assert second[0][0] == "2"
    assert 29 <= second[0][1] <= 30
    assert second[-1] == ("2", 199)
    assert found["updown"]["stage"] == "updown"
    assert found["updown"]["sizes"] == [64, 30, 20]


def test_its_errors_are_those_of_what_it_trained(done) -> None:
    out, found, *_ = done
    belief = belief_runs.load(out / "dbn")
    network, data = belief.network, belief.data
    wrong = network.classify(data.test.tensor()) != torch.as_tensor(data.test.labels)
    assert found["updown"]["test_error"] == pytest.approx(100 * float(wrong.double().mean()))
    assert found["updown"]["minutes"] > 0
    for name, reference, most in (
        ("updown", 1.25, 75),
        ("finetune", 0.92, 60),
        ("features", 1.83, 30),
    ):
        assert found[name]["reference"] == reference
        assert 0 < found[name]["test_error"] < most  # chance is 90 %
    assert runs.is_run(out / "dbn" / "finetune")
    tried = found["features"]["validation_errors"]
    assert found["features"]["validation_error"] == min(tried.values())
    assert float(min(tried, key=tried.__getitem__)) == found["features"]["strength"]


def test_it_draws_classes_from_noise(done) -> None:
    out, found, *_ = done
    assert 0 <= found["classes"]["told_as_their_class"] <= 1
    for name in ("classes", "classes-samples"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_minutes_leave_pauses_out(tmp_path) -> None:
    class Run:
        def metrics(self):
            return [{"time": t} for t in (0.0, 60.0, 120.0, 9000.0, 9060.0)]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(deep_belief.runs, "is_run", lambda folder: folder == tmp_path)
        patched.setattr(deep_belief.runs, "open_run", lambda _: Run())
        assert deep_belief.minutes_of(tmp_path) == pytest.approx(4)
        assert deep_belief.minutes_of(tmp_path / "none") == 0
