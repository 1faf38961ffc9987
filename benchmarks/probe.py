"""Fresh processes for what happens once a process: memory and first uses.

A module that measures runs itself again as `python -m benchmarks.NAME` and prints one line of JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def fresh(module: str, *arguments: object, cache: Path, threads: int) -> dict[str, Any]:
    """Run a module of this folder in a new process that keeps compiled kernels in `cache`.

    Raises
    ------
    RuntimeError
        If it fails; the message is the end of what it said.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        # numba's folder, and that of anything that follows the XDG convention.
        "NUMBA_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:] or f"it ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
