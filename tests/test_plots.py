"""Pictures: exact pixels where pixels are promised, and figures that survive odd inputs."""

import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from PIL import Image

from gibbsian import plots
from gibbsian.errors import GibbsianError

STEPS = [0, 1, 10, 100, 1000, 10000]
GREY, WHITE = 176, 255


def pixels(figure) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return np.asarray(Image.open(plots.save(figure, f"{folder}/x.png")).convert("RGB"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# ---- tile


def test_tile_places_every_pixel():
    x = np.array([[0, 1, 0.5, 2], [1, 0, -1, 0.2]])  # values outside [0, 1] are clipped
    g = GREY
    expected = [
        [g, g, g, g, g, g, g],
        [g, 0, 255, g, 255, 0, g],
        [g, 128, 255, g, 0, 51, g],
        [g, g, g, g, g, g, g],
    ]
    got = plots.tile(x, (2, 2), columns=2)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


def test_tile_enlarges_values_but_not_the_padding():
    got = plots.tile(np.array([[0.0, 1.0]]), (1, 2), pad=1, scale=2)
    np.testing.assert_array_equal(got[1:3, 1:5], [[0, 0, 255, 255]] * 2)
    assert got.shape == (4, 6)


@pytest.mark.parametrize("n", [1, 2, 7, 10, 64])
def test_tile_holds_any_number_of_images(rng, n):
    x = rng.random((n, 6))
    grid = plots.tile(x, (2, 3), pad=0)
    h, w = grid.shape
    assert h % 2 == w % 3 == 0
    columns = w // 3
    for i in range(n):
        r, c = divmod(i, columns)
        cell = grid[2 * r : 2 * r + 2, 3 * c : 3 * c + 3]
        np.testing.assert_array_equal(cell.ravel(), np.rint(255 * x[i]))


@pytest.mark.parametrize(("n", "shape"), [(64, (8, 8)), (10, (2, 5)), (12, (3, 4))])
def test_the_grid_is_about_square_and_full(n, shape):
    assert plots.tile(np.zeros((n, 4)), (2, 2), pad=0).shape == (2 * shape[0], 2 * shape[1])


def test_channels_first_and_last_give_the_same_picture(rng):
    image = rng.random((3, 4, 5, 3))
    last = plots.tile(image.reshape(3, -1), (4, 5, 3))
    first = plots.tile(image.transpose(0, 3, 1, 2).reshape(3, -1), (3, 4, 5))
    assert last.shape[-1] == 3
    np.testing.assert_array_equal(last, first)
    np.testing.assert_array_equal(last[1:5, 1:6], np.rint(255 * image[0]))


def test_one_channel_is_grey(rng):
    x = rng.random((2, 20))
    np.testing.assert_array_equal(plots.tile(x, (1, 4, 5)), plots.tile(x, (4, 5)))
    np.testing.assert_array_equal(plots.tile(x, (4, 5, 1)), plots.tile(x, (4, 5)))


def test_normalise():
    x = np.array([[-2.0, 0.0, 1.0, 2.0]])
    assert plots.tile(x, (1, 4), pad=0, normalise="symmetric").tolist() == [[0, 128, 191, 255]]
    assert plots.tile(x, (1, 4), pad=0, normalise=(-1, 1)).tolist() == [[0, 128, 255, 255]]
    assert plots.tile(0 * x, (1, 4), pad=0, normalise="symmetric").tolist() == [[128] * 4]


def test_rows_that_are_no_images_become_a_heat_map(rng):
    x = rng.random((5, 7))
    np.testing.assert_array_equal(plots.tile(x, None), np.rint(255 * x))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float64])
def test_tensors_of_any_kind(dtype):
    x = torch.tensor([[0, 1, 1, 0]], dtype=dtype)
    assert plots.tile(x, (2, 2), pad=0).tolist() == [[0, 255], [255, 0]]


def test_a_tensor_that_needs_its_gradient():
    x = torch.ones(1, 4, requires_grad=True)
    assert (plots.tile(x, (2, 2), pad=0) == 255).all()


@pytest.mark.parametrize(
    ("x", "shape", "options", "words"),
    [
        (np.zeros((2, 5)), (2, 2), {}, "Rows of 5 values"),
        (np.zeros((0, 4)), (2, 2), {}, "no rows"),
        (np.full((1, 4), np.nan), (2, 2), {}, "NaN"),
        (np.zeros((1, 4)), (4,), {}, "image shape"),
        (np.zeros((1, 20)), (2, 2, 5), {}, "channels"),
        (np.zeros((1, 0)), (0, 4), {}, "no rows"),
        (np.zeros((1, 4)), (2, 2), {"columns": 0}, "columns"),
        (np.zeros((1, 4)), (2, 2), {"scale": 0}, "scale"),
        (np.zeros((1, 4)), (2, 2), {"normalise": (1, 0)}, "smaller"),
    ],
)
def test_bad_images_are_refused_in_one_sentence(x, shape, options, words):
    with pytest.raises(GibbsianError, match=words) as caught:
        plots.tile(x, shape, **options)
    assert "\n" not in str(caught.value)


# ---- files


def test_a_saved_picture_is_crisp_and_repeats_byte_for_byte(tmp_path, rng):
    x = (rng.random((6, 16)) < 0.5).astype(np.float32)
    one = plots.save_images(x, (4, 4), tmp_path / "new" / "one.png", scale=5, pad=0)
    two = plots.save_images(torch.from_numpy(x), (4, 4), tmp_path / "two.png", scale=5, pad=0)
    assert one.read_bytes() == two.read_bytes()
    picture = np.asarray(Image.open(one))
    np.testing.assert_array_equal(picture[2::5, 2::5], plots.tile(x, (4, 4), pad=0))
    assert set(np.unique(picture)) == {0, 255}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.png"]


@pytest.mark.parametrize(("shape", "d"), [((28, 28), 784), ((3, 32, 32), 3072), (None, 17)])
def test_automatic_enlargement_fills_about_a_thousand_pixels(tmp_path, shape, d):
    path = plots.save_images(np.zeros((64, d)), shape, tmp_path / "x.png")
    assert 700 <= max(Image.open(path).size) <= 1100


def test_gif_has_its_frames_and_times(tmp_path, rng):
    frames = (rng.random((5, 9, 16)) < 0.5).astype(float)
    path = plots.save_gif(frames, (4, 4), tmp_path / "chains.gif", fps=4)
    with Image.open(path) as film:
        assert film.n_frames == 5
        times = []
        for i, frame in enumerate(frames):
            film.seek(i)
            times.append(film.info["duration"])
            shown = np.asarray(film.convert("L"))
            still = Image.open(plots.save_images(frame, (4, 4), tmp_path / "still.png"))
            np.testing.assert_array_equal(shown, np.asarray(still))
    assert times == [250, 250, 250, 250, 1500]


def test_gif_in_colour_and_of_one_frame(tmp_path, rng):
    path = plots.save_gif(rng.random((3, 2, 48)), (4, 4, 3), tmp_path / "colour.gif")
    assert Image.open(path).n_frames == 3
    path = plots.save_gif(rng.random((1, 2, 5)), None, tmp_path / "one.gif")
    assert Image.open(path).n_frames == 1


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": 51}, {"scale": 0}])
def test_gif_refuses_impossible_settings(tmp_path, options):
    with pytest.raises(GibbsianError):
        plots.save_gif(np.zeros((2, 3, 4)), (2, 2), tmp_path / "x.gif", **options)


def test_gif_refuses_a_single_grid(tmp_path):
    with pytest.raises(GibbsianError, match="T, n, d"):
        plots.save_gif(np.zeros((3, 4)), (2, 2), tmp_path / "x.gif")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GibbsianError, match="cannot be written"):
        plots.save_images(np.zeros((1, 4)), (2, 2), tmp_path / "file" / "x.png")


# ---- figures


def energies(rng, start: float, t: int = 6, chains: int = 5) -> np.ndarray:
    decay = start * np.exp(-np.arange(t))[:, None]
    return -50 + decay + rng.normal(size=(t, chains))


RECORDS = [
    {"step": 0, "train": {"pseudo_likelihood": -40.0}, "weight_norm": 0.1},
    {"step": 10, "train": {"pseudo_likelihood": None}, "nonfinite": ["train.pseudo_likelihood"]},
    {"step": 20, "train/pseudo_likelihood": float("nan"), "validation/pseudo_likelihood": -31},
    {"step": 30, "train.pseudo_likelihood": -30.0, "note": "hello", "weight_norm": 0.4},
]


def figures(rng) -> dict:
    x, y = rng.random((5, 16)), rng.random((5, 16))
    colour = rng.random((2, 48))
    trace = rng.random((6, 3, 16))
    noise, data = energies(rng, 300), energies(rng, 0, chains=3)
    curve = ([1, 2, 3], [-30.0, -25.0, -24.0])
    return {
        "neighbours": lambda: plots.samples_and_neighbours(x, y, (4, 4)),
        "neighbours, one": lambda: plots.samples_and_neighbours(x[:1], y[:1], (4, 4)),
        "neighbours, no image": lambda: plots.samples_and_neighbours(x, y, None),
        "neighbours, colour": lambda: plots.samples_and_neighbours(colour, colour, (3, 4, 4)),
        "neighbours, wide": lambda: plots.samples_and_neighbours(
            rng.random((3, 700)), rng.random((3, 700)), (1, 700)
        ),
        "strip": lambda: plots.strip(trace, STEPS, (4, 4)),
        "strip, one": lambda: plots.strip(trace[:1, :1], [0], (4, 4)),
        "strip, no image": lambda: plots.strip(trace, STEPS, None, normalise=(-1, 2)),
        "strip, no image, wide": lambda: plots.strip(rng.random((6, 2, 60)), STEPS, None),
        "strip, colour": lambda: plots.strip(rng.random((2, 2, 48)), [0, 5], (4, 4, 3)),
        "classes": lambda: plots.classes({"a": x, "a longer name": x[:2]}, (4, 4)),
        "classes, many": lambda: plots.classes({"a": rng.random((130, 4)), "b": x[:, :4]}, (2, 2)),
        "classes, no image": lambda: plots.classes({"a": x[:2], "b": x}, None),
        "filters": lambda: plots.filters(rng.normal(size=(70, 16)), (4, 4)),
        "filters, one, zero": lambda: plots.filters(np.zeros((1, 16)), (4, 4)),
        "filters, small and deep": lambda: plots.filters(
            3.7e-4 * rng.normal(size=(1, 4)), (2, 2), layer=2
        ),
        "filters, no image": lambda: plots.filters(torch.randn(3, 16), None),
        "filters, no image, deep": lambda: plots.filters(torch.randn(30, 7), None, layer=2),
        "filters, colour": lambda: plots.filters(rng.normal(size=(3, 48)), (3, 4, 4)),
        "reconstructions": lambda: plots.reconstructions(x, y, x, (4, 4)),
        "reconstructions, no image": lambda: plots.reconstructions(x, y, x, None),
        "curves": lambda: plots.learning_curves(RECORDS),
        "curves, one record": lambda: plots.learning_curves([{"weight_norm": 2}]),
        "energy, with close-up": lambda: plots.energy_chains(noise, data, STEPS),
        "energy, one time": lambda: plots.energy_chains(noise[:1], data[:1], [0]),
        "energy, one chain, no start": lambda: plots.energy_chains(
            noise[2:, :1], torch.from_numpy(data[2:, :1]), torch.tensor(STEPS[2:])
        ),
        "energy, chains that diverged": lambda: plots.energy_chains(
            np.where(noise > 0, np.inf, noise), np.full((6, 2), np.nan), STEPS
        ),
        "bounds": lambda: plots.likelihood_bounds((-86.9, -87.1, -86.7), (-87.2, -87.5, -87.0)),
        "bounds, all": lambda: plots.likelihood_bounds(
            (-86.9, -87.1, -86.7),
            (-87.2, -87.5, -87.0),
            reverse_from_noise=(float("-inf"), float("-inf"), -90.0),
            exact=-87.0,
        ),
        "bounds, one": lambda: plots.likelihood_bounds(None, (1200.0, 1200.0, 1200.0)),
        "bounds, ladder": lambda: plots.likelihood_bounds(
            (-86.9, -87.1, -86.7), (-87.2, -87.5, -87.0), ladder=(-87.05, -87.1, -87.0)
        ),
        "mixing": lambda: plots.mixing(
            energies(rng, 300, 200, 9), energies(rng, 0, 200, 9), np.arange(200) * 10
        ),
        "mixing, two draws": lambda: plots.mixing(noise[:2], data[:2], [1, 2]),
        "ladder": lambda: plots.ladder(torch.full((40,), 0.3), 1234, 100, 500),
        "ladder, one rung": lambda: plots.ladder([0.01], 0, 4, 20, labels=["0–1"]),
        "log Z, ladder": lambda: plots.log_z_along(
            [0, 0.3, 1], [5.0, 9.0, -3.5], [np.nan, np.nan, 0.4], exact=-3.2
        ),
        "log Z, trajectory": lambda: plots.log_z_along(
            [0, 100, 5000, 20_000], [100.0, 150, 300, 460], [0, 0.1, 0.2, 0.9], label="updates"
        ),
        "along a ladder": lambda: plots.along_ladder(trace, [f"β = {i}" for i in range(6)], (4, 4)),
        "along a ladder, many": lambda: plots.along_ladder(
            rng.random((40, 8, 16)), [f"β = {i / 39:.2f}" for i in range(40)], (4, 4)
        ),
        "along a ladder, no image": lambda: plots.along_ladder(trace, list("abcdef"), None),
        "study": lambda: plots.study({10: curve, 100: curve, 11: curve}),
        "study, one": lambda: plots.study({10: ([1], [-20.0])}),
    }


@pytest.mark.parametrize("name", list(figures(np.random.default_rng(0))))
def test_every_figure_is_drawn_and_nothing_runs_off_the_paper(name):
    picture = pixels(figures(np.random.default_rng(3))[name]())
    assert (picture[0] == WHITE).all() and (picture[:, 0] == WHITE).all()
    assert (picture[-1] == WHITE).all() and (picture[:, -1] == WHITE).all()
    assert (picture != WHITE).any()


@pytest.mark.parametrize("name", ["strip", "neighbours, no image", "curves", "bounds"])
def test_equal_figures_give_equal_bytes(tmp_path, name):
    paths = [
        plots.save(figures(np.random.default_rng(seed))[name](), tmp_path / f"{number}.png")
        for number, seed in enumerate((3, 3, 4))
    ]
    one, two, other = (path.read_bytes() for path in paths)
    assert one == two
    assert (one == other) == (name in ("curves", "bounds"))  # those hold no random numbers
    assert b"Software" not in one and b"tIME" not in one


def test_a_figure_takes_no_notice_of_the_users_style(rng):
    import matplotlib

    x = rng.random((3, 16))
    plain = pixels(plots.strip(x[None], [0], (4, 4)))
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        styled = pixels(plots.strip(x[None], [0], (4, 4)))
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(plain, styled)


def test_matplotlib_waits_for_the_first_figure_and_pyplot_for_ever(tmp_path):
    code = (
        "import sys; from gibbsian import plots;"
        "assert 'matplotlib' not in sys.modules and 'PIL' not in sys.modules;"
        "plots.save(plots.study({3: ([1, 2], [-2.0, -1.0])}), sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "x.png"], check=True, timeout=120)


def test_pixels_of_a_picture_figure_are_whole(rng):
    x = (rng.random((1, 64)) < 0.5).astype(float)
    figure = plots.strip(x[None], [7], (8, 8))
    picture = pixels(figure)[..., 0]
    place = figure.axes[0].get_position()
    top = round((1 - place.y1) * picture.shape[0]) + 2  # the frame is two pixels wide
    left = round(place.x0 * picture.shape[1]) + 2
    scale = 20
    found = picture[top : top + 8 * scale, left : left + 8 * scale]
    assert (picture[top - 2 : top, left : left + 8 * scale] == GREY).all()
    np.testing.assert_array_equal(found, np.kron(255 * x.reshape(8, 8), np.ones((scale, scale))))


def test_a_strip_has_a_line_a_chain_and_a_column_a_time():
    trace = np.zeros((2, 3, 1))
    trace[1, 2] = 1  # the last chain, at the second time, is the only white one
    axes = plots.strip(trace, [0, 1], (1, 1)).axes[0]
    image = np.asarray(axes.get_images()[0].get_array())[..., 0]
    h, w = image.shape
    centres = image[[h // 6, h // 2, h - h // 6]][:, [w // 4, w - w // 4]]
    np.testing.assert_array_equal(centres, [[0, 0], [0, 0], [0, 255]])


def test_a_sample_stands_above_its_neighbour():
    samples, neighbours = np.zeros((3, 1)), np.ones((3, 1))
    figure = plots.samples_and_neighbours(samples, neighbours, (1, 1))
    image = np.asarray(figure.axes[0].get_images()[0].get_array())[..., 0]
    h, w = image.shape
    assert image[h // 4, w // 6] == 0 and image[h - h // 4, w // 6] == 255
    assert [text.get_text() for text in figure.texts] == ["sample", "nearest"]


def test_filters_come_by_norm_on_one_scale():
    weights = np.array([[0.1], [-2.0], [1.0], [0.0]])
    figure = plots.filters(weights, (1, 1), most=3)
    assert figure.texts[0].get_text() == "3 of 4 filters, largest norm first"
    image = np.asarray(figure.axes[0].get_images()[0].get_array()).astype(int)
    h, w, _ = image.shape
    first, second = image[h // 2, w // 6], image[h // 2, w // 2]
    assert first[2] > first[0] + 50  # the largest is negative: blue
    assert second[0] > second[2] + 50  # the next is positive: red
    assert second.sum() > first.sum()  # and half as large: paler


def test_classes_have_lines_of_their_own():
    figure = plots.classes({"cat": np.zeros((12, 1)), "dog": np.ones((3, 1))}, (1, 1))
    image = np.asarray(figure.axes[0].get_images()[0].get_array())[..., 0]
    names = {t.get_text(): (1 - t.get_position()[1]) * figure.get_figheight() for t in figure.texts}
    assert list(names) == ["cat", "dog"] and names["cat"] < names["dog"]
    dark, pitch = np.argwhere(image == 0)[:, 0], len(image) / 3
    assert dark.max() < 2 * pitch  # two lines of ten at most, and none beside the dogs'
    line = image[round(2.5 * pitch)]
    assert not (line == 0).any()
    assert (line == 255).sum() > 0


def test_filters_say_of_which_layer_they_are():
    for layer, words in ((1, "Layer 1: couplings to"), (2, "Layer 2: products of couplings")):
        for shape in ((2, 2), None):
            figure = plots.filters(np.eye(4), shape, layer=layer)
            texts = [t.get_text() for t in figure.texts]
            assert words in " ".join(texts), texts


def test_curves_read_every_spelling_and_leave_gaps():
    figure = plots.learning_curves(RECORDS)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["Pseudo-likelihood", "Weight norm"]
    train, validation = figure.axes[0].get_lines()
    np.testing.assert_array_equal(
        train.get_xydata(), [[0, -40], [10, np.nan], [20, np.nan], [30, -30]]
    )
    np.testing.assert_array_equal(validation.get_xydata(), [[20, -31]])


def test_the_close_up_comes_only_when_the_start_dwarfs_the_end(rng):
    times = np.arange(200)
    noise, data = -50 + rng.normal(size=(2, 200, 9))
    assert len(plots.energy_chains(noise, data, times).axes) == 1
    noise[:3] += 1000
    assert len(plots.energy_chains(noise, data, times).axes) == 2


def test_the_gap_is_written_out():
    figure = plots.likelihood_bounds(
        (-80.0, -81, -79), (-80.4, -81, -80), reverse_from_noise=(-82.5, -83, -82)
    )
    assert figure.get_suptitle() == "Gap 2.50 nats"
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks[0] == "AIS\nerrs upwards"
    assert ticks[1:] == ["Reverse AIS\nchains from data", "Reverse AIS\nchains from noise"]


def test_the_ladder_takes_no_part_in_the_gap():
    figure = plots.likelihood_bounds((-80.0, -81, -79), (-80.4, -81, -80), ladder=(-90.0, -91, -89))
    assert figure.get_suptitle() == "Gap 0.40 nats"
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "Ladder\ntempering"


def test_the_band_of_mixing_is_that_of_the_late_chains_from_data(rng):
    noise, data = rng.normal(size=(400, 50)), 3 + 2 * rng.normal(size=(400, 50))
    figure = plots.mixing(noise, data, np.arange(400), margin=0.5)
    (band,) = figure.axes[0].patches
    assert band.get_y() == pytest.approx(2, abs=0.1) and band.get_height() == pytest.approx(
        2, abs=0.1
    )
    means = [line.get_ydata().mean() for line in figure.axes[0].lines]
    assert means == pytest.approx([0, 3], abs=0.1)


def test_both_ends_of_a_long_ladder_are_shown():
    samples = np.repeat(np.arange(40)[:, None, None] / 39, 5, axis=1).repeat(4, axis=2)
    figure = plots.along_ladder(samples, [f"{i}" for i in range(40)], None)
    titles = [t for t in (a.get_title(loc="left") for a in figure.axes) if t]
    assert len(titles) == 12 and titles[0] == "0" and titles[-1] == "39"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.samples_and_neighbours(np.zeros((2, 4)), np.zeros((3, 4)), (2, 2)),
        lambda: plots.reconstructions(*np.zeros((3, 2, 5)), (2, 2)),
        lambda: plots.strip(np.zeros((2, 3, 4)), [0], (2, 2)),
        lambda: plots.strip(np.zeros((3, 4)), [0, 1, 2], (2, 2)),
        lambda: plots.classes({}, (2, 2)),
        lambda: plots.filters(np.zeros((3, 5)), (2, 2)),
        lambda: plots.filters(np.zeros((0, 4)), (2, 2)),
        lambda: plots.learning_curves([]),
        lambda: plots.learning_curves([{"step": 1, "weight_norm": None}]),
        lambda: plots.energy_chains(np.zeros((3, 2)), np.zeros((2, 2)), [0, 1, 2]),
        lambda: plots.energy_chains(np.zeros(3), np.zeros(3), [0, 1, 2]),
        lambda: plots.energy_chains(np.full((1, 2), np.nan), np.full((1, 2), np.inf), [0]),
        lambda: plots.likelihood_bounds(None, (float("nan"), 0.0, 0.0)),
        lambda: plots.mixing(np.zeros((3, 2)), np.zeros((2, 2)), [0, 1, 2]),
        lambda: plots.mixing(np.zeros((3, 2)), np.zeros((3, 1)), [0, 1, 2]),
        lambda: plots.mixing(np.zeros((1, 2)), np.full((1, 2), np.inf), [0]),
        lambda: plots.ladder([], 0, 1, 1),
        lambda: plots.log_z_along([1.0], [2.0]),
        lambda: plots.log_z_along([1.0, 2.0], [2.0, 3.0], [0.1]),
        lambda: plots.along_ladder(np.zeros((3, 2, 4)), ["0"], (2, 2)),
        lambda: plots.study({}),
        lambda: plots.study({0: ([1], [-1.0])}),
        lambda: plots.study({3: ([1, 2], [-1.0])}),
    ],
)
def test_figures_refuse_what_they_cannot_draw(draw):
    with pytest.raises(GibbsianError) as caught:
        draw()
    assert "\n" not in str(caught.value)
