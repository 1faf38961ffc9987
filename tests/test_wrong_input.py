"""Runs input_cases.py as users run the package: without the run-time checks of types and shapes."""

import os
import subprocess
import sys
from pathlib import Path


def test_wrong_input_ends_in_one_sentence() -> None:
    file = Path(__file__).with_name("input_cases.py")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(file),
    ]
    environment = os.environ | {"GIBBSIAN_TESTS_UNCHECKED": "1"}
    found = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=file.parents[1]
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
