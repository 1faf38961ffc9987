"""The binary version of CIFAR-10: a tar archive, or the folder that it unpacks to."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from gibbsian.errors import DataError

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
IMAGE_SHAPE = (3, 32, 32)
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32
_TOO_LARGE = 2**28


def read_cifar10(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels of CIFAR-10 from its tar archive or its folder.

    Each record is one label byte and 3072 pixel bytes: the red plane, the green, the blue, each
    row by row. Archive members are read as streams by name and never unpacked to disk.

    Returns
    -------
    train images (rows, 3072) uint8, train labels (rows,) int64, test images, test labels.

    Raises
    ------
    DataError
        If a batch is missing, truncated, or holds a label above 9.
    """
    parts: dict[str, np.ndarray] = {}
    try:
        for name, data in _members(path):
            if not data or len(data) % _RECORD:
                raise DataError(
                    f"{name} in {path} is damaged: {len(data)} bytes are not a whole number of "
                    f"{_RECORD}-byte images; fetch it again."
                )
            parts[name] = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
            if parts[name][:, 0].max() > 9:
                raise DataError(f"{name} in {path} holds a label above 9: it is not CIFAR-10.")
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"{path} can't be read ({error}): it may be truncated; fetch it again."
        ) from error
    missing = [name for name in (*_TRAIN, _TEST) if name not in parts]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: give the binary version of CIFAR-10.")
    train = np.concatenate([parts[name] for name in _TRAIN])
    test = parts[_TEST]
    return (
        np.ascontiguousarray(train[:, 1:]),
        train[:, 0].astype(np.int64),
        np.ascontiguousarray(test[:, 1:]),
        test[:, 0].astype(np.int64),
    )


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The batch files in the folder or archive ``path``: their names and bytes."""
    wanted = {*_TRAIN, _TEST}
    if path.is_dir():
        for name in sorted(wanted):
            if (path / name).is_file():
                yield name, (path / name).read_bytes()
        return
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name in wanted and member.isfile() and member.size <= _TOO_LARGE:
                stream = archive.extractfile(member)
                if stream is not None:
                    yield name, stream.read()
