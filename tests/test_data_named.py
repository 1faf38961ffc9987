"""Named sets: generated ones against the truth, real ones from a folder or a (local) download."""

import functools
import gzip
import hashlib
import http.server
import io
import itertools
import tarfile
import threading
from pathlib import Path

import numpy as np
import pooch
import pytest
from numpy.testing import assert_array_equal
from test_data_files import write_idx

import gibbsian.data as gd
from gibbsian.data import named
from gibbsian.data.generated import bars_and_stripes, ising2d
from gibbsian.errors import DataError

# Generated sets


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bars_and_stripes_are_exactly_the_patterns(n):
    listed = bars_and_stripes(n, rows=0)
    want = set()
    for lines in itertools.product([False, True], repeat=n):
        grid = np.repeat(np.array(lines)[:, None], n, 1)
        want |= {grid.tobytes(), grid.T.copy().tobytes()}
    assert {np.ascontiguousarray(g).tobytes() for g in listed} == want
    assert len(listed) == 2 ** (n + 1) - 2


def chi_square(counts: np.ndarray, p: np.ndarray) -> float:
    """Standardised chi-square statistic, about N(0, 1) under p."""
    expected = counts.sum() * p
    k = len(p) - 1
    return float((((counts - expected) ** 2 / expected).sum() - k) / (2 * k) ** 0.5)


def test_bars_and_stripes_are_drawn_uniformly():
    drawn = bars_and_stripes(3, rows=30_000, seed=1).reshape(-1, 9)
    code = drawn @ (1 << np.arange(9))
    _, counts = np.unique(code, return_counts=True)
    assert len(counts) == 14
    assert abs(chi_square(counts, np.full(14, 1 / 14))) < 4.5
    # The twin: empty and full grids twice as likely, as when the direction is drawn first.
    twice = np.full(14, 1 / 16)
    twice[[0, -1]] = 2 / 16
    assert abs(chi_square(counts, twice)) > 4.5


def ising_truth(L: int, T: float) -> float:
    """The mean energy per spin by enumeration of the L x L torus."""
    states = (np.arange(2 ** (L * L))[:, None] >> np.arange(L * L)) & 1
    s = (states * 2 - 1).reshape(-1, L, L).astype(np.int8)
    energy = -sum((s * np.roll(s, 1, axis)).sum((1, 2), dtype=int) for axis in (1, 2))
    w = np.exp(-(energy - energy.min()) / T)
    return float((energy * w).sum() / w.sum() / (L * L))


def energies(s: np.ndarray) -> np.ndarray:
    return -sum((s * np.roll(s, 1, axis)).mean((1, 2)) for axis in (1, 2))


@pytest.mark.parametrize("L, T", [(3, 3.0), (4, 1.5), (4, 2.269), (4, 4.0)])
def test_ising_energy_against_enumeration(L, T):
    e = energies(ising2d(L, T, rows=6000, seed=2))
    error = e.std() / len(e) ** 0.5
    assert abs(e.mean() - ising_truth(L, T)) < 4 * error
    assert abs(e.mean() - ising_truth(L, T * 1.06)) > 4 * error  # the twin: another temperature


def test_ising_is_symmetric_and_its_rows_are_independent():
    s = ising2d(8, 2.0, rows=2000, seed=0)
    assert s.dtype == np.int8 and set(np.unique(s)) == {-1, 1}
    m = s.mean((1, 2))
    assert abs((m > 0).mean() - 0.5) < 4.5 * 0.5 / 2000**0.5  # ordered, yet both signs
    assert np.abs(m).mean() > 0.8
    assert abs(np.corrcoef(m[:-1], m[1:])[0, 1]) < 4.5 / 2000**0.5


def test_generated_sets_by_name():
    data = gd.load("ising2d:L=5,T=3,rows=100,seed=4,sweeps=3")
    assert data.image_shape == (5, 5) and data.layout == [("spin", 25)]
    assert len(data.train) + len(data.validation) + len(data.test) == 100
    other = gd.load("ising2d:L=5,T=3,rows=100,seed=5,sweeps=3")
    assert data.fingerprint != other.fingerprint
    # The seed of the split leaves the rows alone.
    assert (
        gd.load("bars-and-stripes", seed=1).fingerprint == gd.load("bars-and-stripes").fingerprint
    )
    assert gd.load("bars-and-stripes:n=3").n_features == 9


@pytest.mark.parametrize(
    "name, said",
    [
        ("ising2d:K=3", "has no parameter 'K': write it as 'ising2d:L=8,T=2.5,"),
        ("ising2d:L=two", "'two' is no value for L"),
        ("ising2d:T=-1", "needs L of at least 3, T above 0"),
        ("ising2d:L=2", "needs L of at least 3"),
        ("bars-and-stripes:n=0", "a side n from 1 to 30"),
        ("bars-and-stripes:rows=-1", "can't list -1 rows"),
        ("digits:n=4", "takes no parameters"),
    ],
)
def test_bad_parameters(name, said):
    with pytest.raises(DataError, match=said):
        gd.load(name)


def test_names_and_digits():
    assert gd.names()[0] == "digits" and len(gd.names()) == 6
    data = gd.load("digits", classes=4)
    assert data.n_features == 64 and set(data.train.labels) == {4}
    with pytest.raises(DataError, match="The data set 'digits' brings its own labels: give none"):
        gd.load("digits", labels=[1])
    with pytest.raises(DataError, match="has no labels and takes none"):
        gd.load("ising2d:L=4,T=1", labels=[1])
    with pytest.raises(DataError, match="brings its own rows: leave key out"):
        gd.load("digits", key="a")


# Real sets from a folder


def write_mnist(folder: Path, suffix: str = "") -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for stem, n in (("train", 200), ("t10k", 50)):
        # Train pixels are even and test pixels odd, so that no row can hide among the others.
        odd = stem == "t10k"
        arrays[f"{stem}-images-idx3-ubyte"] = (
            rng.integers(0, 127, (n, 28, 28), dtype=np.uint8) * 2 + odd
        ).astype(np.uint8)
        arrays[f"{stem}-labels-idx1-ubyte"] = (np.arange(n) % 10).astype(np.uint8)
    for name, values in arrays.items():
        write_idx(folder / f"{name}{suffix}", values)
    return arrays


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_sets_from_a_folder_keep_their_own_test_part(tmp_path, monkeypatch, name, suffix):
    arrays = write_mnist(tmp_path / name, suffix)
    monkeypatch.setenv("GIBBSIAN_DATA", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", None)  # whoever calls it fails
    data = gd.load(name)
    assert (len(data.train), len(data.validation), len(data.test)) == (190, 10, 50)
    assert data.image_shape == (28, 28) and data.transform.names == ["stochastic-binarise"]
    assert (data.test.raw(range(50)) % 2 == 1).all() and (data.train.raw(range(190)) % 2 == 0).all()
    assert_array_equal(data.test.labels, arrays["t10k-labels-idx1-ubyte"])
    fours = gd.load(name, classes=4 if name == "mnist" else ["Coat"])
    assert set(fours.train.labels) == set(fours.test.labels) == {4} and len(fours.test) == 5
    with pytest.raises(DataError, match="has a test part of its own"):
        gd.load(name, test=0.1)
    assert gd.load(name, test=0).test is None
    again = gd.load(**fours.spec)
    assert_array_equal(again.train.index, fours.train.index)
    elsewhere = gd.load(name, data_dir=tmp_path)
    assert elsewhere.fingerprint == data.fingerprint


def test_folders_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", None)
    with pytest.raises(DataError, match=r"holds no mnist/train-images-idx3-ubyte\.gz or mnist/tr"):
        gd.load("mnist", data_dir=tmp_path)
    monkeypatch.setenv("GIBBSIAN_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match="gone does not exist: check GIBBSIAN_DATA"):
        gd.load("cifar10")


def cifar_parts(rows: int = 20) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    parts = {}
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (rows, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(rows) % 10
        parts[name] = records.tobytes()
    return parts


def write_tar(path: Path, parts: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in parts.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("archive", [True, False])
def test_cifar10_from_an_archive_or_a_folder(tmp_path, archive):
    parts = cifar_parts()
    if archive:
        write_tar(tmp_path / "cifar-10-binary.tar.gz", parts | {"../../evil.bin": b"x"})
    else:
        (tmp_path / "cifar-10-batches-bin").mkdir()
        for name, data in parts.items():
            (tmp_path / "cifar-10-batches-bin" / name).write_bytes(data)
    data = gd.load("cifar10", data_dir=tmp_path, classes=["cat", 5])
    assert data.image_shape == (3, 32, 32) and data.label_names[3] == "cat"
    assert set(data.train.labels) == {3, 5} and len(data.test) == 4
    first = np.frombuffer(parts["test_batch.bin"], np.uint8).reshape(-1, 3073)[3, 1:]
    assert_array_equal(data.test.raw([0])[0], first)
    picture = data.to_images(data.transform(data.test.raw([0]), named_generator()))
    assert picture.shape == (1, 32, 32, 3)
    assert not (tmp_path.parent / "evil.bin").exists()


def named_generator():
    import torch

    return torch.Generator().manual_seed(0)


def test_damaged_cifar10(tmp_path):
    path, parts = tmp_path / "cifar-10-binary.tar.gz", cifar_parts()
    short = parts | {"data_batch_2.bin": parts["data_batch_2.bin"][:-1]}
    lacking = {name: data for name, data in parts.items() if name != "data_batch_5.bin"}
    wrong = parts | {"test_batch.bin": b"\x0b" + parts["test_batch.bin"][1:]}
    for bad, said in (
        (short, "data_batch_2.bin in .* is damaged"),
        (lacking, "lacks data_batch_5.bin"),
        (wrong, "holds a label above 9"),
    ):
        write_tar(path, bad)
        with pytest.raises(DataError, match=said):
            gd.load("cifar10", data_dir=tmp_path)
    write_tar(path, parts)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="can't be read"):
        gd.load("cifar10", data_dir=tmp_path)


# Downloads, from a server on this machine


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A local server of four small MNIST files, with their checksums, and a cache of its own."""
    folder = tmp_path / "www"
    write_mnist(folder, ".gz")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    served = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    sums = tuple(
        hashlib.md5((folder / f"{part}.gz").read_bytes()).hexdigest() for part in named._PARTS
    )
    url = f"http://127.0.0.1:{served.server_address[1]}/"
    monkeypatch.setitem(named._IDX_SETS, "mnist", (url, sums))
    monkeypatch.delenv("GIBBSIAN_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)

    def stop():
        served.shutdown()
        served.server_close()
        thread.join()

    yield folder, url, stop
    if thread.is_alive():
        stop()


def test_download_is_checked_cached_and_shown(server, tmp_path, capfd):
    _, _, stop = server
    data = gd.load("mnist")
    assert len(data.test) == 50
    assert "train-images" in capfd.readouterr().err
    stop()  # and offline, from the cache, in silence
    assert gd.load("mnist").fingerprint == data.fingerprint
    assert "train-images" not in capfd.readouterr().err
    assert "data_dir" not in data.spec


def test_failed_download_says_what_to_do(server, monkeypatch):
    _, _, stop = server
    stop()
    with pytest.raises(DataError) as caught:
        gd.load("mnist")
    said = str(caught.value)
    assert "can't be downloaded (ConnectionError)" in said and "\n" not in said
    assert "GIBBSIAN_DATA or --data-dir" in said


def test_missing_on_the_server(server):
    folder, _, _ = server
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"can't be downloaded \(HTTPError\).*GIBBSIAN_DATA"):
        gd.load("mnist")


def test_wrong_checksum(server):
    folder, _, _ = server
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"another checksum than the published .*GIBBSIAN_DATA"):
        gd.load("mnist")


# Real data, where there are some


def test_real_mnist(data_dir):
    data = gd.load("mnist", data_dir=data_dir)
    assert (len(data.train), len(data.validation), len(data.test)) == (57_000, 3_000, 10_000)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(data.test.labels).tolist() == counts
    assert abs(float(data.test.raw(range(10_000)).double().mean()) / 255 - 0.1325) < 1e-4


def test_real_cifar10(data_dir):
    cats = gd.load("cifar10", data_dir=data_dir, classes="cat")
    assert cats.n_features == 3072 and set(cats.test.labels) == {3} and len(cats.test) == 100
