"""Files read in shuffled chunks: every row once, resumable, and at flat memory."""

import subprocess
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.testing import assert_array_equal

import gibbsian.data as gd
from gibbsian.data import dataset, files, hdf5, tables

N = 3000


@pytest.fixture(params=["h5", "npy", "parquet"])
def streamed(request, tmp_path, monkeypatch) -> gd.Dataset:
    """A data set of row numbers in a file, in many small blocks and buffers."""
    for module in (files, hdf5, tables):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(dataset, "BUFFER_BYTES", 6000)
    monkeypatch.setattr(dataset, "SCATTERED_ROWS", 200)
    x = np.stack([np.arange(N), np.arange(N) % 7], 1).astype(np.float32)
    path = tmp_path / f"x.{request.param}"
    if request.param == "h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=x, chunks=(40, 2))
    elif request.param == "npy":
        np.save(path, x)
    else:
        pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), path, row_group_size=130)
    data = gd.load(path, in_memory=False, transform="identity", labels=np.arange(N), seed=3)
    assert not data.train.in_memory and len(data.train._rows.blocks()) > 15
    return data


def test_an_epoch_visits_every_train_row_once_in_shuffled_order(streamed):
    batches = list(streamed.batches(64, epoch=0, seed=0))
    assert len(batches) == streamed.batches_per_epoch(64) == 37
    rows = torch.cat([b.x[:, 0] for b in batches]).long().numpy()
    assert len(np.unique(rows)) == len(rows) == 37 * 64
    assert set(rows) <= set(streamed.train.index)
    for b in batches[:3]:
        assert_array_equal(b.labels, b.x[:, 0])  # labels follow their rows
        assert_array_equal(streamed.train.index[b.index.numpy()], b.x[:, 0])
    assert np.abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.5  # blocks are shuffled
    assert (np.diff(rows) == 1).mean() < 0.1  # and rows inside the buffer


def test_batches_resume_bit_for_bit_without_reading_what_was_done(streamed, monkeypatch):
    whole = list(streamed.batches(50, epoch=2, seed=9))
    for start in (1, 17, len(whole) - 1):
        rest = list(streamed.batches(50, epoch=2, seed=9, start=start))
        assert len(rest) == len(whole) - start
        for a, b in zip(whole[start:], rest, strict=True):
            assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index)
    other = list(streamed.batches(50, epoch=3, seed=9))
    assert not torch.equal(whole[0].x, other[0].x)


def test_a_streamed_part_smaller_than_a_batch_is_one_batch(streamed):
    (batch,) = streamed.batches(1000, epoch=0, seed=0, split="test")
    assert sorted(batch.x[:, 0].long().tolist()) == sorted(streamed.test.index.tolist())


def test_tensor_and_chunks_agree_and_their_head_is_a_random_sample(streamed):
    part = streamed.train
    x = part.tensor()
    assert_array_equal(x[:, 0], part.index)
    assert_array_equal(part.labels, part.index)
    assert torch.equal(part.tensor(150), x[:150])
    assert np.ptp(part.index[:200]) > 0.9 * N
    assert (np.diff(part.index[200:]) > 0).all()
    assert_array_equal(part.raw([5, 3, 5])[:, 0], part.index[[5, 3, 5]])


def test_parts_are_those_of_the_same_rows_in_memory(streamed):
    held = gd.load(streamed.spec["source"], in_memory=True, transform="identity", seed=3)
    for name in ("train", "validation", "test"):
        assert set(held.split(name).index) == set(streamed.split(name).index)


MEASURE = """
import sys, torch
torch.set_num_threads(1)
import h5py
import gibbsian.data as gd
def peak():
    status = open("/proc/self/status").read()  # unlike ru_maxrss, free of the parent's peak
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
before = peak()
data = gd.load(sys.argv[1], in_memory=sys.argv[2] == "held", transform="stochastic-binarise")
generator = torch.Generator().manual_seed(0)
rows = sum(len(b.x) for b in data.batches(500, epoch=0, seed=0, generator=generator))
rows += sum(len(x) for x in data.test.chunks())
print(rows, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_file_trains_at_flat_memory(tmp_path):
    path, rows = tmp_path / "large.h5", 2500
    block = np.random.default_rng(0).integers(0, 256, (rows, 1024), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (128 * rows, 1024), np.uint8, chunks=(500, 1024))
        for i in range(128):
            data[i * rows : (i + 1) * rows] = block
    grown = {}
    for mode in ("streamed", "held"):
        command = [sys.executable, "-c", MEASURE, str(path), mode]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(out[0]) == 128 * rows * 9 // 10
        grown[mode] = float(out[1])
    size = 128 * rows * 1024 / 2**20
    assert grown["streamed"] < size / 2 < size < grown["held"] * 1.05, grown


def test_import_leaves_the_heavy_libraries_alone():
    code = (
        "import sys, gibbsian.data; "
        "print([m for m in ('sklearn', 'h5py', 'pyarrow', 'pooch', 'rich', 'matplotlib') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
