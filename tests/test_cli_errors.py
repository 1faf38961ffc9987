"""Every mistake at the command line: one sentence, an exit code other than 0, and nothing lost."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call, works

from gibbsian import checkpoint, cli, memory, runs
from gibbsian.training import Trainer

SMALL = ("--hidden", 3, "--updates", 10, "--limit", 120)
QUICK = ("--temperatures", 5, "--chains", 4, "--mixing-steps", 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of files and runs for others to misuse; nobody changes it."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    bits = (rng.random((60, 6)) < 0.4).astype(np.float32)
    np.save(folder / "bits.npy", bits)
    np.savez(folder / "two.npz", a=bits, b=bits)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        spoilt = bits.copy()
        spoilt[3, 2] = value
        np.save(folder / f"{name}.npy", spoilt)
    np.save(folder / "none.npy", bits[:0])
    np.save(folder / "line.npy", bits[0])
    np.save(folder / "negative.npy", bits - 3)
    np.save(folder / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    np.save(folder / "fifty.npy", np.arange(50))
    np.save(folder / "wide.npy", np.ones((9, 7), dtype=np.float32))
    (folder / "zero.npy").touch()
    (folder / "cut.npy").write_bytes((folder / "bits.npy").read_bytes()[:200])
    (folder / "ragged.csv").write_text("a,b\n1,2\n3\n")
    (folder / "odd.foo").write_text("abc")
    (folder / "folder").mkdir()
    (folder / "folder" / "letter").write_text("dear all")
    (folder / "bad.toml").write_text("lr = ")
    (folder / "odd.toml").write_text("rate = 3")
    (folder / "text.toml").write_text('lr = "fast"')
    (folder / "half.toml").write_text("hidden = 2.5")
    (folder / "list.toml").write_text("optimizer-option = [3]")
    (folder / "drive.toml").write_text('sampler = "driven"\n[sampler-option]\nstdd = 0.1')
    (folder / "both.toml").write_text("epochs = 1\nupdates = 2")
    works("train", "digits", *SMALL, "--out", folder / "run")
    works("train", folder / "bits.npy", "--hidden", 2, "--updates", 5, "--out", folder / "plain")
    works("train", "digits", *SMALL, "--validation", 0, "--test", 0, "--out", folder / "alone")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    """The working directory: a copy of `made`."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
    }


TRAIN = """
                                                        | Name the data
digitz                                                  | did you mean 'digits'
missing.npy                                             | no file missing.npy
folder                                                  | is a folder
zero.npy                                                | is empty
cut.npy                                                 | can't be read
objects.npy                                             | never unpickles
odd.foo                                                 | no known format
ragged.csv                                              | can't be read
none.npy                                                | at least one row
line.npy                                                | at least two
nan.npy                                                 | row 3, column 2
inf.npy                                                 | row 3, column 2
two.npz                                                 | needs a key
two.npz --key c                                         | no array 'c'
bits.npy --key c                                        | leave key out
negative.npy --transform stochastic-binarise            | 'scale'
digits --model hopfield --transform scale               | choose another transform
bits.npy --labels fifty.npy                             | 50 labels for the 60 rows
bits.npy --labels nowhere                               | neither inside
bits.npy --classes 4                                    | need labels
bits.npy --test wide.npy                                | 7 columns
bits.npy --test missing.npy                             | no file missing.npy
bits.npy --test bits.npy                                | trained on
digits --labels species                                 | --labels without a name
digits --classes 11                                     | no row
digits --classes 1,x                                    | no class 'x'
digits --limit 0                                        | at least 1
digits --validation -1                                  | not a share
digits --validation nan                                 | not a share
digits --test inf                                       | not a share
digits --validation 1.5                                 | not a share
digits --validation 5000                                | none for training
digits --validation 0.6 --test 0.6                      | none for training
digits --transform binarise                             | unknown transform
mnist --data-dir nowhere                                | does not exist
mnist --data-dir folder                                 | holds no mnist
digits --model rmb                                      | known are rbm
digits --model dbmm                                     | hopfield, dbn.
digits --hidden 0                                       | hidden
digits --hidden -3                                      | -3
digits --hidden 200000000000                            | not enough memory
digits --method pdc                                     | pcd
digits --method cd --chains 5                           | leave --chains
digits --method fpcd --refresh 0.1                      | leave --refresh
digits --method jarzynski --fast-lr 0.1                 | leave --fast-lr
digits --method ptt --refresh 0.1 --levels 3            | leave --refresh and --levels out
digits --method cd --witnesses 3                        | use --method jarzynski
digits --method pcd --acceptance 0.3                    | use --method ptt
digits --method fpcd --sampler tempering                | use --method pcd
digits --sampler langevin                               | Gaussian units throughout
digits --sampler temper                                 | gibbs-langevin, rates, not 'temper'
digits --sampler gibbs-langevin                         | Gaussian units throughout
digits --sampler-option size=1                          | gibbs takes no options; leave size out
digits --method fpcd --sampler-option size=1            | leave --sampler-option out or use --method pcd
digits --sampler langevin --sampler-option size         | pairs such as size=0.05, not 'size'
digits --sampler driven --sampler-option stdd=1         | std (a number), momentum (a number), steps
digits --sampler driven --sampler-option std=wide       | not std='wide'
digits --sampler driven --sampler-option std=3          | lies from 0 to 1, not at 3
digits --sampler rates --sampler-option shared=1        | shared (true or false)
digits --sampler tempering --sampler-option sweeps=1.5  | sweeps (a whole number), not sweeps=1.5
digits --sampler trajectory                             | --method ptt trains along one
digits --sampler driven --levels 4                      | --levels counts
digits --levels 4                                       | add --sampler tempering
digits --sampler tempering --levels 1                   | at least 2
digits --sampler tempering --chains 900000000           | at 2 levels of tempering
digits --method jarzynski --witnesses -1                | number of witnesses
digits --method ptt --acceptance 2                      | acceptance
digits --method ptt --reservoir 0                       | reservoir
digits --method ptt --chains 900000000                  | a reservoir of 9,000,000,000 states
digits --fast-lr 0.1                                    | use --method fpcd
digits --steps 0                                        | steps
digits --chains 0                                       | chains
digits --chains 900000000000                            | fewer chains
digits --refresh 2                                      | refresh
digits --weights bad                                    | glorot
digits --visible-bias nan                               | nan
digits --batch-size 0                                   | batch_size
digits --epochs 3                                       | both
digits --lr 0                                           | learning rate
digits --lr nan                                         | learning rate
digits --optimizer adamm                                | adamw
digits --optimizer lbfgs                                | adamw
digits --optimizer-option momentum                      | momentum=0.9
digits --optimizer-option mom=1                         | mom
digits --optimizer-option momentum=x                    | sgd
digits --schedule cosine                                | known are constant
digits --schedule-option hold=x                         | not hold='x'
digits --schedule-option hld=1                          | hld
digits --l1 -1                                          | -1
digits --l2 nan                                         | nan
digits --average 1                                      | average
digits --patience 0                                     | patience
digits --patience 3 --tolerance nan                     | tolerance
digits --seed -1                                        | 2147483647
digits --seed 99999999999999999999                      | 2147483647
digits --device warp                                    | no device 'warp'
digits --device meta                                    | no device 'meta'
digits --threads 0                                      | threads
digits --threads 1000000                                | threads
digits --keep-last 0                                    | keep_last
digits --config missing.toml                            | cannot be read
digits --config folder                                  | cannot be read
digits --config bad.toml                                | no valid TOML
digits --config odd.toml                                | unknown option 'rate'
digits --config text.toml                               | must be a number
digits --config half.toml                               | hidden = 2.5
digits --config list.toml                               | optimizer_option
digits --config drive.toml                              | steps (a whole number), not stdd
digits --config bits.npy                                | no valid TOML
digits --config run/config.toml                         | no options but --out
"""

# Options that a line above does not give for itself.
_BASE = {"--hidden": 3, "--updates": 10}


def lines(table: str) -> list[tuple[str, str]]:
    pairs = (line.rsplit("|", 1) for line in table.strip("\n").splitlines())
    return [(words.strip(), said.strip()) for words, said in pairs]


@pytest.mark.parametrize(("words", "said"), lines(TRAIN))
def test_train_refuses(words, said, here) -> None:
    before = listing(here)
    base = [str(x) for pair in _BASE.items() if pair[0] not in words for x in pair]
    assert said in call("train", *words.split(), *base, "--out", "new").sentence
    assert listing(here) == before  # not even an empty run, which a second attempt would trip over
    # What cannot be trained does not cost the run that it was to replace, either.
    call("train", *words.split(), *base, "--out", "run", "--overwrite")
    assert listing(here) == before


OTHERS = """
trian                                                   | No such command
--verson                                                | No such option
train digits --hiden 3                                  | --hidden
train digits --hidden many                              | --hidden
train digits --hidden 2.5                               | --hidden
train digits extra                                      | extra
train digits --config both.toml --out new               | both
train --resume                                          | --out RUN alone
train digits --resume --out run                         | --out RUN alone
train --resume --out run --hidden 3                     | --out RUN alone
train --resume --out run --overwrite                    | --out RUN alone
train --resume --out nowhere                            | not a gibbsian run
train --resume --out folder                             | not a gibbsian run
train digits --out run                                  | already holds a run
train digits --hidden 2 --updates 2 --out folder        | not empty
train digits --hidden 2 --updates 2 --out bits.npy      | cannot write bits.npy
train digits --hidden 2 --updates 2 --out bits.npy/run  | cannot write bits.npy/run
sample                                                  | RUN
sample nowhere                                          | not a gibbsian run
sample folder                                           | not a gibbsian run
sample bits.npy                                         | not a gibbsian run
sample run --checkpoint 7                               | steps there are
sample run --checkpoint first                           | 'latest'
sample run --checkpoint -4                              | 'latest'
sample run --start nois                                 | noise, reference, data, test
sample run --sampler temper                             | gibbs-langevin, rates, not 'temper'
sample run --sampler-option size=1                      | gibbs takes no options; leave size out
sample run --sampler annealed --sampler-option n=1      | annealed takes no options
sample run --sampler langevin --sampler-option siez=1   | size (a number), adjusted (true or false)
sample run --sampler driven --sampler-option std=x      | not std='x'
sample run --sampler driven --sampler-option std        | pairs such as size=0.05, not 'std'
sample run --sampler driven --sampler-option std=3      | lies from 0 to 1, not at 3
sample run --sampler rates --sampler-option statistics=bits | 'rates' or 'sampled', not 'bits'
sample run --sampler gibbs-langevin                     | Gaussian
sample run --sampler tempering --levels 1               | --levels
sample run --sampler trajectory                         | holds no trajectory
sample run --sampler langevin                           | Gaussian
sample run --means --out x.npz                          | holds samples and means alike
sample run --levels 5                                   | --levels belongs to --sampler tempering
sample run --sampler annealed --start data              | leave --start out
sample run --sampler annealed --steps 0                 | at least one temperature
sample run --sampler annealed --precision bf16          | leave --precision out
sample run --sampler annealed --out x.gif               | pass many
sample run --out x.jpg                                  | .npz or .png or .gif
sample run --out folder                                 | .npz or .png or .gif
sample run --out bits.npy/x.png                         | cannot be made
sample run -n 0                                         | -n
sample run -n 900000000000                              | lower -n
sample run --steps -1                                   | --steps
sample run --device warp                                | no device 'warp'
sample run --seed -1                                    | --seed
sample run --seed x                                     | --seed
sample plain --steps 1 --out x.png                      | no images
sample alone --steps 1 --start test                     | no test rows
evaluate nowhere                                        | not a gibbsian run
evaluate run --chains 1                                 | --chains
evaluate run --chains 900000000000                      | lower --chains
evaluate run --temperatures 0                           | --temperatures
evaluate run --mixing-steps 2                           | --mixing-steps
evaluate run --sampler langevin                         | gibbs, tempering, trajectory, transitions here
evaluate run --sampler trajectory                       | holds no trajectory; train with --save-trajectory
report run --sampler trajectory --out new               | holds no trajectory; train with --save-trajectory
evaluate run --held-out-margin 2                        | --held-out-margin
evaluate run --held-out train                           | are test or validation rows, not 'train'
report run --held-out train                             | are test or validation rows, not 'train'
evaluate run --rows 0                                   | --rows
evaluate run --checkpoint 7                             | steps there are
evaluate run --jsn                                      | --json
reconstruct nowhere --flip 0.1                          | not a gibbsian run
reconstruct run                                         | --flip, or --hide-rows
reconstruct run --flip 0.1 --hide-rows 1:2              | --flip, or --hide-rows
reconstruct run --flip 2                                | from 0 to 1
reconstruct run --flip nan                              | from 0 to 1
reconstruct run --hide-rows a:b                         | such as 10:17
reconstruct run --hide-rows 5:3                         | some but not all
reconstruct run --hide-rows 20:30                       | some but not all
reconstruct run --hide-cols :                           | some but not all
reconstruct plain --hide-rows 0:1                       | images only
reconstruct run --flip 0.1 --split tset                 | train, validation, test
reconstruct alone --flip 0.1                            | no test rows
reconstruct run --flip 0.1 --out x.gif                  | .png
reconstruct run --flip 0.1 --out bits.npy/x.png         | cannot be made
report nowhere                                          | not a gibbsian run
report run --out bits.npy                               | cannot be made
report run --chains 900000000000                        | lower --chains
info                                                    | RUN
info run --checkpoint 7                                 | steps there are
info nowhere                                            | not a gibbsian run
info folder                                             | not a gibbsian run
study                                                   | DATA
study digitz                                            | did you mean 'digits'
study digits --hidden ten                               | 10,20,50
study digits --hidden 10,0                              | 10,20,50
study digits --hidden 5,5                               | twice
study digits --epochs 0                                 | --epochs
study digits --method pdc                               | pcd
study digits --model rmb                                | known are rbm
study digits --hidden 2 --lr -1                         | learning rate
study digits --out bits.npy                             | cannot be made
demo --updates 0                                        | --updates
demo --updates 3 --out run                              | already holds a run
demo --updates 3 --out folder                           | not empty
"""


@pytest.mark.parametrize(("words", "said"), lines(OTHERS))
def test_commands_refuse(words, said, here) -> None:
    before = listing(here)
    assert said in call(*words.split()).sentence
    after = listing(here)
    assert {k: v for k, v in after.items() if k not in ("study",)} == before


@pytest.mark.parametrize(("sampler", "said"), [
    ("rates", "500 chains of RatesFPCD need"), ("tempering", "levels of tempering need"),
])  # fmt: skip
def test_what_samplers_keep_of_each_chain_is_counted(sampler, said, here, monkeypatch) -> None:
    """Room for the states of 500 chains of 64 and 3 units, and for little more."""
    monkeypatch.setattr(memory, "free_memory", lambda like: 600_000)
    words = ("sample", "run", "-n", 500, "--steps", 1)
    sentence = call(*words, "--sampler", sampler).sentence
    assert said in sentence and "ask for fewer chains" in sentence
    assert not Path("samples.npz").exists()
    works(*words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
@pytest.mark.parametrize("command", ["train digits --out new", "sample run", "evaluate run"])
def test_a_device_that_is_not_there(command, here) -> None:
    assert "no device 'cuda'" in call(*command.split(), "--device", "cuda").sentence


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_resuming_on_a_machine_without_the_device(here) -> None:
    file = here / "run" / "config.toml"
    file.write_text(file.read_text().replace('device = "cpu"', 'device = "cuda"'))
    assert "'cuda'" in call("train", "--resume", "--out", "run").sentence


def test_unreadable_files(here) -> None:
    Path("bits.npy").chmod(0)
    if os.access("bits.npy", os.R_OK):
        pytest.skip("this user may read everything")
    assert "can't be opened" in call("train", "bits.npy", "--out", "new").sentence


def test_read_only_folders(here) -> None:
    for folder in (here / "run", here / "run" / "checkpoints", here / "folder"):
        folder.chmod(0o555)
    if os.access("run", os.W_OK):
        pytest.skip("this user may write everywhere")
    try:
        for words in ("train digits --hidden 2 --updates 2 --out folder/run",
                      "train --resume --out run", "report run", "sample run --out run/x.npz",
                      "sample run --out folder/new/x.png", "reconstruct run --flip 0.1"):  # fmt: skip
            sentence = call(*words.split()).sentence
            assert "permission" in sentence.lower() or "cannot be written" in sentence
    finally:
        for folder in (here / "run", here / "run" / "checkpoints", here / "folder"):
            folder.chmod(0o755)


# --- full disks -------------------------------------------------------------------------------


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_in_training_keeps_the_last_checkpoint(here, monkeypatch) -> None:
    real = Trainer._update

    def update(self, x, weights):
        if self.step == 6:
            monkeypatch.setattr(checkpoint.os, "fsync", full)
        real(self, x, weights)

    monkeypatch.setattr(Trainer, "_update", update)
    words = ("train", "digits", *SMALL, "--checkpoint-every", 2, "--out", "new")
    sentence = call(*words).sentence
    assert "No space left on device" in sentence
    assert "resume" in sentence
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert runs.open_run("new").checkpoints[-1] == 6
    works("train", "--resume", "--out", "new")
    assert runs.open_run("new").checkpoints[-1] == 10


@pytest.mark.parametrize("words", ["sample run --steps 1 --out run/x.npz", "report run"])
def test_a_full_disk_leaves_no_half_written_file(words, here, monkeypatch) -> None:
    before = {name for name in listing(here) if not name.endswith(".png")}
    monkeypatch.setattr(checkpoint.os, "fsync", full)
    more = QUICK if words.startswith("report") else ()
    assert "No space left on device" in call(*words.split(), *more).sentence
    assert {name for name in listing(here) if not name.endswith(".png")} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has such a device")
def test_an_output_that_takes_nothing(here) -> None:
    command = [sys.executable, "-m", "gibbsian", "info", "run"]
    with open("/dev/full", "w") as sink:
        found = subprocess.run(command, stdout=sink, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    assert "No space left on device" in found.stderr
    assert len(found.stderr.splitlines()) == 1


# --- damaged and changed runs -----------------------------------------------------------------


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(here) -> None:
    file = next(Path("run/checkpoints").glob("step-000000010-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-40])
    found = works("sample", "run", "--steps", 1)
    assert file.name in found.notes[0]
    assert "damaged" in found.notes[0]
    assert file.name in call("sample", "run", "--checkpoint", 10).sentence
    whole = checkpoint.read("run/checkpoints", 9).tree["average"]
    assert file.name in works("train", "--resume", "--out", "run").notes[0]
    assert runs.open_run("run").checkpoints[-1] == 10
    assert not works("sample", "run", "--steps", 1).notes
    assert whole.keys() == checkpoint.read("run/checkpoints", 10).tree["average"].keys()


def test_runs_whose_checkpoints_are_all_damaged_or_gone(here) -> None:
    for file in Path("run/checkpoints").iterdir():
        file.write_bytes(b"?")
    for words in ("sample run", "train --resume --out run"):
        found = call(*words.split())
        assert "all 3 checkpoints" in found.sentence
        assert len(found.notes) == 3
    shutil.rmtree("run/checkpoints")
    assert "no checkpoint yet" in call("sample", "run").sentence


CONFIGS = [
    ("[machine]", "[mach", "sample run", "not valid TOML"),
    ("[machine]", "[mach]", "sample run", "lost its part machine"),
    ("[machine]", "[mach]", "train --resume --out run", "lost its part machine"),
    ("[data.spec]", "[data.spek]", "sample run --start data", "lost its part data.spec"),
    ("[method]", "[mode]", "train --resume --out run", "lost its part method"),
    ("[training]", "[train]", "train --resume --out run", "another training setting"),
    ('kind = "pcd"', 'kind = "foo"', "train --resume --out run", "known are cd, pcd"),
    ("batch_size", "bach_size", "train --resume --out run", "bach_size"),
    ("batch_size = 100", "batch_size = 99", "train --resume --out run", None),
    ("size = 3", "size = 5", "sample run", "not the one of"),
    ("size = 3", "size = 5", "train --resume --out run", "not the one of"),
    ("Dense", "Conv", "sample run", "no connection called 'Conv'"),
    ('"Bernoulli"', '"Bernouli"', "sample run", "Bernouli"),
    ("digits", "digitz", "sample run --start data", "digitz"),
]


@pytest.mark.parametrize(("old", "new", "words", "said"), CONFIGS)
def test_a_config_that_someone_edited(old, new, words, said, here) -> None:
    file = Path("run/config.toml")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    if said is None:  # it still fits, and nothing is left to train
        works(*words.split())
    else:
        assert said in call(*words.split()).sentence


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\0\0\0"])
@pytest.mark.parametrize("words", ["sample run", "train --resume --out run"])
def test_a_config_that_is_rubbish(content, words, here) -> None:
    Path("run/config.toml").write_bytes(content)
    assert "config.toml" in call(*words.split()).sentence


def test_rubbish_among_the_metrics_is_left_out(here) -> None:
    with open("run/metrics.jsonl", "ab") as file:
        file.write(b'rubbish\n{"step": 11, "torn')
    assert "line 11" in works("info", "run").notes[0]
    works("train", "--resume", "--out", "run")
    assert not works("info", "run").notes


@pytest.mark.parametrize(
    "words", ["train --resume --out run", "evaluate run", "report run", "sample run --start data"]
)
@pytest.mark.parametrize("happened", ["changed", "deleted"])
def test_data_that_changed_or_went(happened, words, here) -> None:
    """Named defect: a resume whose split leaks test rows into training."""
    works("train", "bits.npy", "--hidden", 2, "--updates", 5, "--out", "run", "--overwrite")
    if happened == "deleted":
        Path("bits.npy").unlink()
    else:
        rows = np.load("bits.npy")
        rows[7, 0] = 1 - rows[7, 0]
        np.save("bits.npy", rows)
    assert "bits.npy" in call(*words.split()).sentence


def test_a_value_that_stops_being_finite_ends_the_run_and_is_named(here, monkeypatch) -> None:
    real = Trainer._update

    def update(self, x, weights):
        if self.step == 5:
            with torch.no_grad():
                self.machine.layers[1].bias[0] = torch.nan
        real(self, x, weights)

    monkeypatch.setattr(Trainer, "_update", update)
    words = ("train", "digits", *SMALL, "--checkpoint-every", 2, "--out", "new")
    sentence = call(*words).sentence
    assert "stopped being finite at update 6" in sentence
    assert runs.open_run("new").checkpoints[-1] == 4


def test_two_trainings_never_share_a_run(here) -> None:
    with runs.open_run("run") as other:
        other.lock()
        Path("run/checkpoints/step-000000010.json").unlink()
        assert "being trained" in call("train", "--resume", "--out", "run").sentence
        words = ("train", "digits", *SMALL, "--out", "run", "--overwrite")
        assert "being trained" in call(*words).sentence


# --- what main does with what nobody foresaw -----------------------------------------------------


def test_running_out_of_memory(monkeypatch) -> None:
    for error in (MemoryError(), RuntimeError("CUDA out of memory."),
                  RuntimeError("DefaultCPUAllocator: can't allocate memory")):  # fmt: skip

        def fail(error=error) -> int:
            raise error

        monkeypatch.setattr(cli, "_run", fail)
        assert "not enough memory" in call("info", "run").sentence


def test_a_bug_of_ours_is_not_dressed_up_as_a_mistake_of_the_user(monkeypatch) -> None:
    def fail() -> int:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        call("info", "run")


def test_ctrl_c_anywhere(here, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runs.Run, "metrics", interrupted)
    found = call("info", "run")
    assert found.code == 130
    assert "Stopped by you" in found.sentence


def test_a_reader_that_leaves_early_is_no_mistake(here) -> None:
    command = f"{sys.executable} -m gibbsian info run --json | true; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert found.stderr == ""
    assert found.stdout.strip() in ("0", "1", "141")  # Typer's own answer is 1
