"""A run is the same whether it went through or was killed, and its files are whole."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ttt_conformance.cli import app
from ttt_lm import checkpoint
from ttt_lm.corpus import Corpus
from ttt_lm.recipe import MIXERS, Every, Machine, Recipe
from ttt_lm.results import Results
from ttt_lm.training import Training

TINY = {"width": 32, "layers": 2, "heads": 2, "context": 32, "batch": 2}
OPTIONS = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
EVERY = ["--log-every", "2", "--evaluate-every", "4", "--checkpoint-every", "4", "--windows", "4"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of this language repeated with other numbers, as many documents."""
    folder = tmp_path_factory.mktemp("text")
    for n in range(100):
        (folder / f"{n}.py").write_text("".join(f"x{i} = {i * n} + y[{i}]\n" for i in range(12)))
    return folder


def training(run, text, steps=8, mixer="ttt-linear"):
    return Training(run, Recipe(mixer=mixer, steps=steps, **TINY), Corpus.of([text]), Machine(), Every(2, 4, 4, 4))


def curve(run):
    return [{key: row[key] for key in ("step", "loss", "held_out_loss") if key in row} for row in map(json.loads, (run / "metrics.jsonl").open())]


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_killed_run_goes_on_as_if_nothing_had_been(mixer, text, tmp_path):
    through, killed = tmp_path / "through", tmp_path / "killed"
    for run in (through, killed):
        run.mkdir()
    training(through, text, mixer=mixer).train(lambda step, values: None)

    def kill(step, values):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(killed, text, mixer=mixer).train(kill)
    assert checkpoint.newest(killed).name == "step-0000004"
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    again = training(killed, text, mixer=mixer)
    assert again.progress.step == 4
    again.train(lambda step, values: None)
    assert curve(killed) == curve(through)
    assert [row["step"] for row in curve(through)] == [2, 4, 6, 8]
    last = [torch.load if False else checkpoint.newest(run) for run in (through, killed)]
    assert (last[0] / "model.safetensors").read_bytes() == (last[1] / "model.safetensors").read_bytes()


def test_a_process_that_is_killed(text, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ttt_conformance.main", "train", "--out", str(run), "--text", str(text), "--steps", "4000", *OPTIONS, *EVERY]
    command[2:3] = ["-c", "from ttt_conformance.main import main; main()"]
    command.remove("-m")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while checkpoint.newest(run) is None and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = checkpoint.newest(run)
    assert found is not None
    from_there = training(run, text, steps=4000)
    assert from_there.progress.step % 4 == 0
    assert from_there.progress.step >= 4
