"""Files of every format: read rightly, refused in one sentence when they can't be."""

import gzip
import struct
import tomllib
import warnings
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
import torch
from numpy.testing import assert_array_equal

import gibbsian.data as gd
from gibbsian.data.idx import read_idx
from gibbsian.errors import DataError, GibbsianWarning

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 3


def write_idx(path: Path, values: np.ndarray, code: int = 8) -> Path:
    head = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    data = head + values.astype(values.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def everything(data: gd.Dataset) -> np.ndarray:
    """The raw rows of all parts in the order of the source."""
    parts = [p for p in (data.train, data.validation, data.test) if p is not None]
    index = np.concatenate([p.index for p in parts])
    raw = np.concatenate([p.raw(range(len(p))).numpy() for p in parts])
    return raw[np.argsort(index)]


@pytest.fixture
def h5(tmp_path) -> Path:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("group/x", data=X, chunks=(7, 3))
        file["y"] = Y
        file["w"] = Y + 1.0
        file["names"] = np.array([b"a", b"b", b"c"])[Y]
    return path


@pytest.fixture
def npz(tmp_path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y, w=Y + 1.0)
    return path


@pytest.fixture
def csv(tmp_path) -> Path:
    path = tmp_path / "people.csv"
    lines, colours = ["age,member,colour,height,kind"], ["red", "green", "blue"]
    for i in range(60):
        lines.append(f"{20 + i},{i % 2},{colours[i % 3]},{1.5 + i / 100},k{i % 2}")
    path.write_text("\n".join(lines) + "\n")
    return path


# Arrays


@pytest.mark.parametrize("in_memory", [True, False])
def test_npy(tmp_path, in_memory):
    np.save(tmp_path / "x.npy", X.reshape(60, 3, 1))
    np.save(tmp_path / "y.npy", Y)
    data = gd.load(tmp_path / "x.npy", labels=tmp_path / "y.npy", in_memory=in_memory)
    assert_array_equal(everything(data), X)
    assert_array_equal(data.train.labels, Y[data.train.index])
    assert data.train.in_memory == in_memory


@pytest.mark.parametrize("in_memory", [True, False])
def test_npz_and_hdf5_by_key(npz, h5, in_memory):
    for path, key in ((npz, "x"), (h5, "group/x"), (h5, "/group/x")):
        data = gd.load(path, key=key, labels="y", weights="w", in_memory=in_memory)
        assert_array_equal(everything(data), X)
        assert_array_equal(data.test.labels, Y[data.test.index])
        assert_array_equal(data.test.weights, Y[data.test.index] + 1.0)
        again = gd.load(**tomllib.loads(tomli_w.dumps(data.spec)))
        assert torch.equal(again.train.tensor(), data.train.tensor())
    assert gd.load(h5, key="group/x", labels="names", classes="b").label_names == ("a", "b", "c")


@pytest.mark.parametrize("in_memory", [True, False])
def test_hdf5_images(tmp_path, in_memory):
    x = np.random.default_rng(0).integers(0, 256, (30, 4, 5), dtype=np.uint8)
    with h5py.File(tmp_path / "images.hdf5", "w") as file:
        file["x"] = x
    data = gd.load(tmp_path / "images.hdf5", in_memory=in_memory)
    assert data.image_shape == (4, 5) and data.transform.names == ["stochastic-binarise"]
    assert_array_equal(everything(data), x.reshape(30, 20))


def test_the_only_array_left_needs_no_key(tmp_path):
    np.savez(tmp_path / "a.npz", pixels=X, y=Y)
    assert_array_equal(everything(gd.load(tmp_path / "a.npz", labels="y")), X)


def test_streamed_and_held_rows_have_the_same_fingerprint_and_parts(h5):
    one, two = (gd.load(h5, key="group/x", in_memory=m) for m in (True, False))
    assert one.fingerprint == two.fingerprint
    assert set(one.train.index) == set(two.train.index)


def test_missing_or_ambiguous_key_lists_the_keys(npz, h5):
    for path, keys in ((npz, "x, y, w"), (h5, "group/x, names, w, y")):
        with pytest.raises(DataError, match=f"has no array 'z': its arrays are {keys}"):
            gd.load(path, key="z")
        with pytest.raises(DataError, match=f"needs a key to choose one of its arrays.* {keys}"):
            gd.load(path)
        with pytest.raises(DataError, match=r"labels = 'q' is neither inside .* nor a file"):
            gd.load(path, key="x" if path is npz else "group/x", labels="q")


@pytest.mark.parametrize("suffix", ["-ubyte", "-ubyte.gz"])
def test_idx(tmp_path, suffix):
    x = np.random.default_rng(0).integers(0, 256, (20, 4, 5), dtype=np.uint8)
    y = (np.arange(20) % 10).astype(np.uint8)
    images = write_idx(tmp_path / f"images-idx3{suffix}", x)
    labels = write_idx(tmp_path / f"labels-idx1{suffix}", y)
    data = gd.load(images, labels=labels)
    assert data.image_shape == (4, 5)
    assert_array_equal(everything(data), x.reshape(20, 20))
    assert_array_equal(data.train.labels, y[data.train.index])


def test_idx_of_other_types(tmp_path):
    for code, dtype in ((9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")):
        values = np.arange(-6, 6).reshape(4, 3).astype(dtype)
        read = read_idx(write_idx(tmp_path / f"a{code}", values, code))
        assert read.dtype == values.dtype and read.dtype.isnative
        assert_array_equal(read, values)


# Tables


@pytest.mark.parametrize("parquet", [False, True])
def test_tables_tell_their_columns_apart(csv, tmp_path, parquet):
    path = csv
    if parquet:
        from pyarrow import csv as pacsv

        path = tmp_path / "people.parquet"
        pq.write_table(pacsv.read_csv(csv), path, row_group_size=25)
    data = gd.load(path, labels="kind", seed=1)
    assert data.transform.names == ["one-hot", "standardise"]
    assert data.layout == [("real", 1), ("binary", 1), ("onehot", 3), ("real", 1)]
    columns = ("age", "member", "colour=blue", "colour=green", "colour=red", "height")
    assert data.transform.column_names == columns
    assert data.label_names == ("k0", "k1")
    x, rows = data.train.tensor().double(), data.train.index
    age = 20.0 + rows
    np.testing.assert_allclose(x[:, 0], (age - age.mean()) / age.std(), atol=1e-5)
    assert_array_equal(x[:, 1], rows % 2)
    assert_array_equal(x[:, 2:5].argmax(1), np.array([2, 1, 0])[rows % 3])
    assert_array_equal(data.train.labels, rows % 2)
    back = data.transform.inverse(x)
    np.testing.assert_allclose(back[:, 0], age, atol=1e-4)
    if parquet:
        streamed = gd.load(path, labels="kind", seed=1, in_memory=False)
        assert streamed.fingerprint == data.fingerprint
        assert_array_equal(everything(streamed), everything(data))


def test_csv_without_a_header_with_semicolons_and_gzipped(tmp_path):
    text = "1;0;2.5\n" * 20 + "2;1;3.5\n" * 20
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.csv", "a.csv.gz"):
        data = gd.load(tmp_path / name, transform="identity")
        assert len(everything(data)) == 40 and data.n_features == 3
        assert data.transform.column_names == ("0", "1", "2")
        assert everything(data)[-1].tolist() == [2, 1, 3.5]


def test_a_table_of_bits_and_labels_from_another_file(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n" + "0,1\n1,1\n" * 10)
    (tmp_path / "y.csv").write_text("label\n" + "no\nyes\n" * 10)
    data = gd.load(tmp_path / "x.csv", labels=str(tmp_path / "y.csv"))
    assert data.transform.names == ["identity"] and data.layout == [("binary", 2)]
    assert everything(data).dtype == np.int8  # compact, and never mistaken for grey levels
    assert data.label_names == ("no", "yes")
    again = gd.load(**data.spec)
    assert_array_equal(again.train.labels, data.train.labels)


def test_a_column_named_like_a_file_is_the_column(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("kind").write_text("7\n" * 20)
    Path("x.csv").write_text("a,kind\n" + "0,1\n1,2\n" * 10)
    data = gd.load("x.csv", labels="kind")
    assert data.spec["labels"] == "kind" and data.spec["source"] == str(tmp_path / "x.csv")
    assert set(data.train.labels) == {1, 2}
    monkeypatch.chdir("/")
    assert gd.load(**data.spec).fingerprint == data.fingerprint


def test_category_of_test_rows_that_no_train_row_has(tmp_path):
    rows = ["red", "blue"] * 20
    probe = gd.load(np.zeros((40, 2)), transform="identity", seed=0)
    rows[probe.test.index[0]] = "mauve"
    (tmp_path / "a.csv").write_text("colour,b\n" + "".join(f"{c},1\n" for c in rows))
    data = gd.load(tmp_path / "a.csv", seed=0)
    assert data.layout[0] == ("onehot", 2)
    with pytest.raises(DataError, match="'colour' holds the category 'mauve', which no training"):
        data.test.tensor()


def test_text_columns_left_alone_are_refused(csv):
    with pytest.raises(DataError, match=r"column 'colour' is text.*add the transform 'one-hot'"):
        gd.load(csv, transform="standardise", labels="kind")


def test_numbers_with_a_stray_mark_are_warned_of(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{i},1\n" for i in range(20)) + "?,1\n")
    with pytest.warns(GibbsianWarning, match=r"mixes numbers with text such as '\?'"):
        gd.load(tmp_path / "a.csv", test=0, validation=0)


def test_parquet_types(tmp_path):
    n = 30
    table = pa.table(
        {
            "flag": pa.array([i % 2 == 0 for i in range(n)]),
            "half": pa.array(np.linspace(-1, 1, n), pa.float32()),
            "kind": pa.array(["u", "v", "w"] * 10).dictionary_encode(),
            "count": pa.array(range(n), pa.uint16()),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    data = gd.load(tmp_path / "t.parquet")
    assert data.layout == [("binary", 1), ("real", 1), ("onehot", 3), ("real", 1)]
    assert_array_equal(everything(data)[:, 3], np.arange(n))


@pytest.mark.parametrize(
    "text, said",
    [
        ("a,b\n1,2\n,3\n", "column 'a' of .* has missing values, the first in row 1"),
        ("a,b\n1,2\n3\n", r"can't be read as a CSV table"),
        ("a,a\n1,2\n", "several columns named 'a'"),
        ("a,b\n", "is empty"),
        ("a,b\n2020-01-01,2\n", "'a' of .* has the type date"),
        ("a,b\n1,2\n4,inf\n", r"1 NaN or infinite value, the first in row 1, column 'b'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        gd.load(tmp_path / "t.csv")


def test_wrong_column_names_list_the_columns(csv):
    with pytest.raises(DataError, match=r"labels = 'x' is neither .* has age, member, colour"):
        gd.load(csv, labels="x")
    with pytest.raises(DataError, match="has no arrays to choose by key = 'x'"):
        gd.load(csv, key="x")


# Test rows from a source of their own


def test_test_dataset_reading_the_train_file(tmp_path):
    other = X[:20] + 100
    np.save(tmp_path / "train.npy", X)
    np.save(tmp_path / "test.npy", other)
    data = gd.load(tmp_path / "train.npy", test=tmp_path / "test.npy", transform="identity")
    assert_array_equal(np.sort(data.test.tensor()[:, 0]), np.sort(other[:, 0]))
    assert len(data.train) + len(data.validation) == 60 and len(data.validation) == 3
    assert data.train.tensor().max() < 50  # no test row among them
    again = gd.load(**tomllib.loads(tomli_w.dumps(data.spec)))
    assert torch.equal(again.test.tensor(), data.test.tensor())
    # The train file itself, or a copy of it, is refused.
    (tmp_path / "copy.npy").write_bytes((tmp_path / "train.npy").read_bytes())
    for same in ("train.npy", "copy.npy"):
        with pytest.raises(DataError, match=r"holds the very rows of .*train.npy"):
            gd.load(tmp_path / "train.npy", test=tmp_path / same)


def test_test_rows_must_match_the_train_rows(tmp_path, csv):
    with pytest.raises(DataError, match=r"has 4 columns and .* has 3"):
        gd.load(X, test=np.zeros((5, 4)))
    with pytest.raises(DataError, match=r"has the dtype torch.uint8 and .* torch.float32"):
        gd.load(X, test=np.zeros((5, 3), np.uint8))
    lines = csv.read_text().splitlines()
    (tmp_path / "more.csv").write_text("\n".join(lines[:1] + lines[10:3:-1]) + "\n")
    data = gd.load(csv, test=str(tmp_path / "more.csv"), labels="kind", validation=0, seed=3)
    assert len(data.train) == 60 and len(data.test) == 7
    colour = data.test.tensor()[:, 2:5].argmax(1)
    assert_array_equal(colour, np.array([2, 1, 0])[np.arange(9, 2, -1) % 3])
    assert data.test.labels.tolist() == [i % 2 for i in range(9, 2, -1)]
    (tmp_path / "less.csv").write_text("age,kind\n3,k0\n")
    with pytest.raises(DataError, match="has other columns than"):
        gd.load(csv, test=tmp_path / "less.csv", labels="kind")


# Files that can't be read


def test_missing_file_folder_and_unknown_name(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*gone\.npy"):
        gd.load(tmp_path / "gone.npy")
    with pytest.raises(DataError, match="is a folder"):
        gd.load(tmp_path)
    with pytest.raises(DataError, match="did you mean 'mnist'"):
        gd.load("mnsit")
    with pytest.raises(DataError, match="is neither a data set nor a file: the data sets are dig"):
        gd.load("zzz")


@pytest.mark.parametrize(
    "name", ["a.npy", "a.npz", "a.csv", "a.h5", "a.parquet", "a-ubyte", "a.gz"]
)
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY rubbish \xff\x00", b"\x1f\x8b\x08 rubbish"])
def test_rubbish_is_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(DataError) as caught:
        warnings.simplefilter("error")
        gd.load(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.parquet", "a-ubyte", "b-ubyte.gz"])
def test_truncated_files(tmp_path, name, in_memory):
    path = tmp_path / name
    x = np.random.default_rng(0).integers(0, 256, (4000, 30), dtype=np.uint8)
    if name == "a.npy":
        np.save(path, x)
    elif name == "a.npz":
        np.savez(path, x=x)
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["x"] = x
    elif name == "a.parquet":
        pq.write_table(pa.table({f"c{i}": x[:, i] for i in range(30)}), path)
    else:
        write_idx(path, x)
    gd.load(path, in_memory=in_memory)  # whole, it is fine
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError) as caught:
        gd.load(path, in_memory=in_memory)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_idx_headers(tmp_path):
    path = tmp_path / "a-ubyte"
    for data, said in (
        (b"\x00\x00\x07\x02" + bytes(20), "is not an IDX file: its first four bytes are 00 00 07"),
        (b"\x00\x00\x08\x03\x00\x00", "truncated inside its IDX header"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abcdefg", "promises 5 bytes and 7 follow"),
        (b"abcdefgh", "is of no known format"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=said):
            gd.load(path)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}, None]))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="Python objects, which gibbsian never unpickles"):
            gd.load(tmp_path / name)
