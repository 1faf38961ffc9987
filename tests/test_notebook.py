"""The course notebook, retold in examples/notebook.py, at tiny settings."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "notebook.py"


def test_the_notebook_retold_runs(tmp_path, capsys) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    trained = main("digits", 150, 8, 20, tmp_path, chains=10, temperatures=20, mixing_steps=20,
                   ladder_steps=0, rows=100)  # fmt: skip
    assert list(trained) == ["Hopfield", "RBM", "RBM (L1)", "DBM"]
    told = capsys.readouterr().out
    _, *after = (float(line.split("%")[0].split()[-1]) for line in told.splitlines() if "%" in line)
    assert len(after) == 4 and max(after) < 30
    assert told.count("nats a digit") >= 3 and told.count("Certificate") == 4
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "reconstructions.png", "fantasies.png", "denoising.png", *(f"features {k}.png" for k in trained)
    }  # fmt: skip
