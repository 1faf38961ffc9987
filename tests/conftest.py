"""What every test shares: shapes checked at run time, one thread, and data only where it is."""

import os
import signal
import sys
from pathlib import Path

import jaxtyping
import pytest
import shape_check
import torch

if "gibbsian" in sys.modules:
    raise RuntimeError("gibbsian was imported before tests/conftest.py could check its shapes")
# Tests of what a user's wrong types lead to need the package as users have it: see test_wrong_input.py.
if "GIBBSIAN_TESTS_UNCHECKED" not in os.environ:
    jaxtyping.jaxtyped = shape_check.jaxtyped
    jaxtyping.install_import_hook("gibbsian", "shape_check.check")
os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg")  # for the programs that tests start too
torch.set_num_threads(1)
# A shell starts what it runs in the background with Ctrl-C ignored, and some tests are of Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Check shapes in the first calls of every function in each test."""
    shape_check.start()
    return (yield)


@pytest.fixture(autouse=True)
def _one_thread():
    """Give each test one thread, whatever the test before it asked for."""
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(20260)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data in GIBBSIAN_DATA; a test that asks for it skips without one."""
    folder = os.environ.get("GIBBSIAN_DATA")
    if not folder:
        pytest.skip("GIBBSIAN_DATA is not set")
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"GIBBSIAN_DATA names {folder}, which is not a folder")
    return path
