"""The inpainting study against machines whose answer is known, and its command."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call, works

import gibbsian as gb
from gibbsian import inpainting, plots
from gibbsian.inpainting import Walk, band, default_counts, hidden_rows, looks, walk


def mirror() -> gb.BoltzmannMachine:
    """Images of 4×2 bits whose four rows are all alike: column j is a copy of hidden bit j."""
    machine = gb.rbm(8, 2)
    with torch.no_grad():
        for j in (0, 1):
            machine.joints[0].weight[j::2, j] = 12.0
        machine.layers[0].bias.fill_(-6.0)
        machine.layers[1].bias.fill_(-24.0)
    return machine


def mirror_rows(count: int = 60) -> torch.Tensor:
    bits = torch.randint(0, 2, (count, 2), generator=torch.Generator().manual_seed(4))
    return bits.float().repeat(1, 4)


def test_bands() -> None:
    shape = (28, 20)
    for where, rows in (("top", range(7)), ("middle", range(10, 17)), ("bottom", range(21, 28))):
        marked = band(shape, where, 7).reshape(shape)
        assert marked.all(dim=1).nonzero().flatten().tolist() == list(rows)
        assert int(marked.sum()) == 7 * 20
    assert int(band((3, 8, 5), "top", 2).reshape(3, 8, 5)[:, :2].sum()) == 3 * 2 * 5
    assert default_counts((28, 28)) == [1, 4, 7, 10, 14]
    assert default_counts((8, 8)) == [1, 2, 3, 4]
    assert looks(1000) == [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert looks(30) == [0, 1, 2, 5, 10, 20, 30]


def test_rows_that_follow_from_the_others_come_back() -> None:
    x = mirror_rows()
    found, shown = hidden_rows(mirror(), x, (4, 2), torch.full((8,), 0.5), [1, 2], 2, 40, 1)
    assert [(h.band, h.rows) for h in found] == [
        (b, k) for k in (1, 2) for b in ("top", "middle", "bottom")
    ]
    assert all(h.error < 0.01 for h in found)
    assert all(h.baseline == pytest.approx(0.25) for h in found)
    assert set(shown) == {"top", "middle", "bottom"}
    assert torch.equal(shown["top"].repaired[:, 4:], x[:, 4:])
    assert torch.allclose(shown["top"].repaired, x, atol=0.1)


def test_a_machine_that_knows_nothing_reaches_the_error_of_its_means() -> None:
    """Without couplings the hidden bits are N(½): error ¼, within its standard errors."""
    x = (torch.rand(200, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    found, _ = hidden_rows(gb.rbm(8, 2), x, (4, 2), torch.full((8,), 0.5), [2], 3, 20, 1)
    for h in found:
        assert h.error == pytest.approx(0.25, abs=1e-6)
        assert h.share == pytest.approx(1.0, abs=1e-5)


def test_standard_errors_cover_the_truth() -> None:
    """Hidden copies of rows in which one bit in ten is wrong: the error of a fresh image is 0.1."""
    machine, rates = mirror(), []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x = mirror_rows(50)
        wrong = torch.rand(50, 2, generator=generator) < 0.1
        x[:, :2] = torch.where(wrong, 1 - x[:, :2], x[:, :2])
        (h,) = [
            h
            for h in hidden_rows(machine, x, (4, 2), torch.full((8,), 0.5), [1], 2, 10, seed)[0]
            if h.band == "top"
        ]
        rates.append((h.error - 0.1) / h.standard_error)
    z = torch.tensor(rates)
    assert 0.7 < float(z.std()) < 1.4
    assert float((z.abs() < 2).float().mean()) > 0.8


def test_probabilities_are_held_as_bits_and_measured_as_they_are() -> None:
    """Grey images: with no couplings and biases at the greys, the repair is the grey itself."""
    machine = gb.rbm(8, 2)
    grey = torch.linspace(0.1, 0.9, 8)
    machine.layers[0].bias.data.copy_(torch.logit(grey))
    x = grey.repeat(20, 1)
    found, shown = hidden_rows(machine, x, (4, 2), grey, [2], 2, 20, 1)
    assert all(h.error < 1e-10 for h in found)
    assert all(h.share is None for h in found)  # nothing is left to know
    assert torch.allclose(shown["middle"].repaired, x, atol=1e-6)


def test_chains_that_cannot_leave_do_not_forget() -> None:
    """Copies of bits that hold each other: a chain stays, and the words say that it does."""
    x = mirror_rows()
    found = walk(mirror(), x, 12, 200, 1)
    assert found.distance[0] == 0
    assert found.distance[-1] < 0.1 < found.others[-1]
    assert found.forgotten is None
    assert "still know where they began" in " ".join(found.words())


def test_one_step_is_one_step_in_words() -> None:
    for tau, said in (
        (1.2, "about 1 step)"),
        (1.6, "about 2 steps)"),
        (2500.0, "about 2,500 steps)"),
    ):
        free = Walk((0, 1), (0.0, 0.3), (0.0, 0.1), (0.3, 0.3), 1, tau, torch.zeros(2, 3, 4))
        words = " ".join(free.words())
        assert said in words
        assert "After 1 step a chain" in words


def test_chains_without_couplings_forget_at_once() -> None:
    x = (torch.rand(40, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    found = walk(gb.rbm(8, 2), x, 40, 100, 1)
    assert found.steps == (0, 1, 2, 5, 10, 20, 50, 100)
    assert found.forgotten in (1, 2, 5)
    assert found.distance[-1] == pytest.approx(0.5, abs=4 * found.standard_error[-1])
    assert found.autocorrelation_time < 2
    said = found.words()
    assert "40 chains are not measurably closer" in said[1]
    assert "sample of the model" in said[-1]


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: band(None, "top", 1), "these data are none"),
        (lambda: band((4, 2), "left", 1), "top, middle, bottom"),
        (lambda: band((4, 2), "top", 4), "at most 3"),
        (lambda: band((4, 2), "top", 0), "at least 1"),
        (lambda: hidden_rows(mirror(), mirror_rows(1), (4, 2), torch.zeros(8), [1]), "2 images"),
        (lambda: hidden_rows(mirror(), mirror_rows(), (4, 2), torch.zeros(8), []), "rows to hide"),
        (lambda: walk(mirror(), mirror_rows(), 2), "at least 3"),
        (lambda: walk(mirror(), mirror_rows(2), 3), "at least 3 images"),
        (lambda: walk(mirror(), mirror_rows(), 5, 3), "at least 8"),
    ],
)
def test_impossible_requests_get_a_sentence(attempt, words) -> None:
    with pytest.raises(gb.GibbsianError, match=words):
        attempt()


# --- on the command line -------------------------------------------------------------------------

QUICK = (
    "--quick",
    "--images",
    6,
    "--steps",
    4,
    "--free-steps",
    20,
    "--hide-rows",
    "1,3",
    "--quiet",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpainting")
    small = ("--updates", 20, "--limit", 200, "--quiet")
    for hidden in (4, 8):
        works("train", "digits", "--hidden", hidden, *small, "--out", folder / f"d{hidden}")
    works(
        "train",
        "digits",
        "--model",
        "gaussian-rbm",
        "--hidden",
        4,
        *small,
        "--out",
        folder / "real",
    )
    table = folder / "table.npy"
    np.save(table, (np.random.default_rng(0).random((60, 7)) < 0.4).astype(np.float32))
    works("train", table, "--hidden", 3, "--updates", 5, "--quiet", "--out", folder / "table")
    return folder


def test_command_writes_figures_numbers_and_words(runs, tmp_path) -> None:
    found = works("inpaint-study", runs / "d4", runs / "d8", *QUICK, "--out", tmp_path / "study")
    names = {"rows.png", "repairs.png", "chains.png", "distance.png", "hidden-units.png"}
    assert {p.name for p in (tmp_path / "study").iterdir()} == names | {"study.json"}
    assert "d8: 8 hidden units" in found.out
    assert "sample of the model" in found.out
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    assert content["runs"]["d8"]["hidden_units"] == 8
    assert len(content["runs"]["d4"]["errors"]) == 6
    assert content["free_chains"]["steps"] == [0, 1, 2, 5, 10, 20]


def test_the_picture_of_free_chains_shows_their_states(runs, tmp_path, monkeypatch) -> None:
    drawn, draw = [], plots.strip
    monkeypatch.setattr(plots, "strip", lambda *all_of: (drawn.extend(all_of), draw(*all_of))[1])
    works("inpaint-study", runs / "d4", *QUICK, "--chains", 5, "--seed", 3, "--out", tmp_path)
    trace, steps, shape = drawn
    assert (list(steps), tuple(shape)) == ([0, 1, 10, 20], (8, 8))
    trained = gb.load(runs / "d4")
    raw = trained.data.test.raw(range(6))
    x = trained.data.transform.expected(raw, torch.Generator().manual_seed(3))
    free = walk(trained.machine, x, 5, 20, 3)
    assert trace.shape == (4, 5, 64)
    assert set(np.unique(trace)) == {0, 1}  # samples, and not their means
    for shown, step in zip(trace, steps, strict=True):
        assert np.array_equal(shown, free.states[free.steps.index(step)].numpy())


def test_command_on_real_units_writes_into_the_run(runs) -> None:
    works("inpaint-study", runs / "real", *QUICK)
    assert (runs / "real" / "inpaint-study" / "rows.png").is_file()
    assert not (runs / "real" / "inpaint-study" / "hidden-units.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("table",), "the data of table are none"),
        (("d4", "real"), "other data, splits or transforms"),
        (("d4", "d4"), "named twice"),
        (("d4", "--hide-rows", "1,9"), "at most 7"),
        (("d4", "--hide-rows", "0:3"), "--hide-rows takes positive numbers"),
        (("d4", "--split", "tset"), "--split takes"),
        (("d4", "--chains", 1), "--chains"),
        (("nowhere",), "nowhere"),
    ],
)
def test_mistakes_get_a_sentence(runs, arguments, words, tmp_path) -> None:
    named = [runs / a if str(a) in ("table", "d4", "real", "nowhere") else a for a in arguments]
    assert words in call("inpaint-study", *named, "--quick", "--out", tmp_path / "x").sentence


def test_bits_have_their_greys_for_a_mean(generator) -> None:
    data = gb.data.load("digits")
    raw = data.train.raw(range(5))
    draws = torch.stack([data.transform(raw, generator) for _ in range(400)]).mean(dim=0)
    assert torch.allclose(draws, data.transform.expected(raw), atol=0.12)
    plain = gb.data.load("digits", transform="threshold")
    assert torch.equal(plain.transform.expected(raw), plain.transform(raw))


def test_the_example_runs(tmp_path, capsys) -> None:
    path = Path(__file__).parents[1] / "examples" / "missing_rows.py"
    main = runpy.run_path(str(path))["main"]
    found = main((3, 5), 30, (1, 3), 10, 2, 8, 20, tmp_path / "out")
    assert [len(errors) for errors in found.values()] == [6, 6]
    names = {"rows.png", "repairs.png", "hidden-units.png", "distance.png", "chains.png"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    assert "5 hidden units" in capsys.readouterr().out


def test_every_public_name_is_documented() -> None:
    for name in inpainting.__all__:
        found = getattr(inpainting, name)
        assert not callable(found) or found.__doc__, name
