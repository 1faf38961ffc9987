"""The CPU path: compiled kernels, run by PyTorch's own threads.

PyTorch's products leave its OpenMP threads spinning for a while, so a second pool of threads would
compete with them for the cores. The kernels therefore run as one more parallel region of the OpenMP
runtime that PyTorch has loaded. Where its entry point is not found (macOS, Windows) they run on the
calling thread.

A call's key of 63 bits is drawn from the run's generator, and everything else follows from counters:
results repeat for a seed, resume with the generator's state, and do not depend on the threads.
"""

import ctypes
import os
import struct
import threading
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor

from gibbsian.errors import GibbsianWarning
from gibbsian.kernels import library

# Below this many units a call is not worth waking other threads.
_SERIAL = 8192

# Units in a chunk of rows that one thread draws at a time.
_CHUNK = 8192

# Up to so many chains, sweeps that skip the bits that are off beat matrix products.
FEW = 4

_HALF = {torch.float32: 0, torch.bfloat16: 1}


def takes(name: str, field: Tensor, *parameters: Tensor) -> bool:
    """Tell whether a kernel can draw from this field: on the CPU, in float32 or bfloat16."""
    return (
        field.dtype in _HALF
        and field.is_cpu
        and all(p.dtype is torch.float32 for p in parameters)
        and available(name)
    )


@cache
def available(name: str = "bernoulli") -> bool:
    """Tell whether a kernel compiles here; ``GIBBSIAN_KERNELS=plain`` turns all of them off."""
    if os.environ.get("GIBBSIAN_KERNELS") == "plain":
        return False
    try:
        library.address(name)
    except Exception as error:
        _warn(_first_line(error))
        return False
    return True


@cache
def _warn(reason: str) -> None:
    """Warn of each reason once, however many kernels it keeps from working."""
    warnings.warn(
        f"the fast CPU kernels cannot be compiled ({reason}), so plain PyTorch draws in their place, "
        "slower; reinstall numba, or set GIBBSIAN_KERNELS=plain",
        GibbsianWarning,
        stacklevel=5,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def draw(name: str, field: Tensor, generator: Generator | None, *extra: Tensor | int) -> Tensor:
    """Draw states from a field; `extra` are the kernel's parameters: numbers, and tensors of one row."""
    return evaluate(name, field, *extra, key=_workspace.key(generator))


def evaluate(name: str, field: Tensor, *extra: Tensor | int, key: int = 0) -> Tensor:
    """Run a kernel on each row of a field, with a key where it draws, and with the parameters `extra`."""
    if not field.is_contiguous():
        field = field.contiguous()
    out = torch.empty_like(field)
    total = field.numel()
    if not total:
        return out
    n = field.shape[-1]
    rows = total // n
    threads = torch.get_num_threads() if total > _SERIAL else 1
    chunk = max(1, min(_CHUNK // n, rows // (4 * threads)))
    stride = (n + 31) // 32 * 512
    # Parameters are held until the kernel is done with their memory.
    held, values = [], [0, 0, 0]
    for i, p in enumerate(extra):
        if isinstance(p, int):
            values[i] = p
        else:
            held.append(p if p.numel() == n and p.is_contiguous() else p.expand(n).contiguous())
            values[i] = held[-1].data_ptr()
    work = _workspace
    _pack(
        work.header, 0, 0, 0, field.data_ptr(), out.data_ptr(), rows, n, key, chunk,
        _HALF[field.dtype], work.scratch(threads * stride), stride, *values,
    )  # fmt: skip
    run(name, work.address, threads)
    return out


def gain(
    name: str, field: Tensor, bias0: Tensor, bias1: Tensor, beta0: float, beta1: float
) -> Tensor:
    """Run a kernel that reduces each row of float32 fields to one float64."""
    field, bias0, bias1 = field.contiguous(), bias0.contiguous(), bias1.contiguous()
    out = torch.empty(field.shape[:-1], dtype=torch.float64, device="cpu")
    total, n = field.numel(), field.shape[-1]
    if not total:
        return out.zero_()
    rows = total // n
    threads = torch.get_num_threads() if total > _SERIAL else 1
    stride = (n + 31) // 32 * 128
    _pack_gain(
        _workspace.header, 0, 0, 0, field.data_ptr(), out.data_ptr(), rows, n, 0,
        max(1, min(_CHUNK // n, rows // (4 * threads))), 0, _workspace.scratch(threads * stride),
        stride, bias0.data_ptr(), bias1.data_ptr(), beta0, 0, beta1, 0,
    )  # fmt: skip
    run(name, _workspace.address, threads)
    return out


def sweeps(
    visible: Tensor, hidden: Tensor, weight: Tensor, bias_v: Tensor, bias_h: Tensor, steps: int,
    generator: Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Sweep chains of bits and return both layers and the fields on the hidden one.

    Every draw has a key of its own, as if it were a call of `draw`.
    """
    visible, hidden = (s.clone(memory_format=torch.contiguous_format) for s in (visible, hidden))
    fields = torch.empty_like(hidden)
    weight, transposed = weight.contiguous(), weight.T.contiguous()
    bias_v, bias_h = bias_v.contiguous(), bias_h.contiguous()
    (rows, n), m = visible.shape, hidden.shape[1]
    keys = torch.empty(2 * steps, dtype=torch.int64, device="cpu").random_(generator=generator)
    threads = min(rows, torch.get_num_threads())
    stride = (max(n, m) + 31) // 32 * 384
    work = _workspace
    _pack_sweeps(
        work.header, 0, 0, 0, visible.data_ptr(), hidden.data_ptr(), rows, n, keys.data_ptr(),
        fields.data_ptr(), m, work.scratch(threads * stride), stride, bias_v.data_ptr(),
        bias_h.data_ptr(), weight.data_ptr(), transposed.data_ptr(), steps,
    )  # fmt: skip
    run("bernoulli_sweeps", work.address, threads)
    return visible, hidden, fields


class _Workspace(threading.local):
    """What a call needs and the next call can use again, one a Python thread."""

    def __init__(self) -> None:
        self.header = ctypes.create_string_buffer(8 * 16)
        self.address = ctypes.addressof(self.header)
        self._key = torch.empty((), dtype=torch.int64, device="cpu")
        self._room = self._place = 0

    def key(self, generator: Generator | None) -> int:
        """Draw the key of one call."""
        return self._key.random_(generator=generator).item()  # type: ignore[return-value]

    def scratch(self, size: int) -> int:
        """Return the address of at least `size` bytes."""
        if size > self._room:
            self._scratch = torch.empty(size, dtype=torch.uint8, device="cpu")
            self._room, self._place = size, self._scratch.data_ptr()
        return self._place


_workspace = _Workspace()
_pack = struct.Struct("<14q").pack_into
_pack_sweeps = struct.Struct("<16q").pack_into
_pack_gain = struct.Struct("<13qfifi").pack_into


def run(name: str, header: int, threads: int) -> None:
    """Run a kernel on the header at an address, with up to so many threads."""
    team = _team() if threads > 1 else None
    if team is None:
        _task(name)(header)
    else:
        team(library.address(name), header, threads, 0)


@cache
def _task(name: str) -> Callable[[int], None]:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(library.address(name))


@cache
def _team() -> Callable[[int, int, int, int], None] | None:
    """Find `GOMP_parallel` of the OpenMP runtime that PyTorch runs on."""
    try:
        entry = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    entry.restype = None
    return entry
