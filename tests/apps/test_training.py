"""A run is the same whether it went through or was killed, and its files are whole."""

import errno
import json
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from ttt_conformance.cli import app
from ttt_lm import checkpoint
from ttt_lm.corpus import Corpus
from ttt_lm.mixers import model_of
from ttt_lm.recipe import MIXERS, Every, Machine, Recipe
from ttt_lm.results import Results
from ttt_lm.training import Training
from ttt_torch.models import TTTConfig, TTTForCausalLM

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
    last = [checkpoint.newest(run) for run in (through, killed)]
    assert (last[0] / "model.safetensors").read_bytes() == (last[1] / "model.safetensors").read_bytes()


def test_a_process_that_is_killed(text, tmp_path):
    run = tmp_path / "run"
    options = ["train", "--out", str(run), "--text", str(text), "--steps", "4000", *OPTIONS, *EVERY]
    command = [sys.executable, "-c", "from ttt_conformance.main import main; main()", *options]
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


def test_what_a_run_leaves(text, tmp_path):
    run = tmp_path / "run"
    done = call("train", "--out", run, "--text", text, "--steps", 8, *OPTIONS, *EVERY)
    assert done.exit_code == 0, done.output
    found = Results.read(run)
    assert found.recipe.text.startswith("text")
    assert [row["step"] for row in found.steps] == [2, 4, 6, 8]
    assert found.numbers["held_out_loss"] == pytest.approx(found.steps[-1]["held_out_loss"])
    assert found.by_position.shape == (32,)
    assert found.inner.shape == (2, 3, 32)
    for name in ("loss.png", "perplexity.png", "inner_loss.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").iterdir())
    assert not list(run.rglob("*.pt*")), "no pickle"
    shown = call("compare", run, run, "--out", tmp_path / "figures")
    assert shown.exit_code == 0, shown.output
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["loss.png", "perplexity.png"]
    more = call("generate", run, "--prompt", "x1 = ", "--tokens", 5, "--temperature", 0)
    assert more.exit_code == 0, more.output
    assert more.output.startswith("x1 = ")
    ids = torch.tensor([list(b"x1 = ")])
    greedy = AutoModelForCausalLM.from_pretrained(checkpoint.newest(run)).generate(ids, max_new_tokens=5, do_sample=False)
    assert more.stdout_bytes == bytes(greedy[0].tolist()) + b"\n"


def test_the_loss_falls_below_the_unigram_entropy(text, tmp_path):
    found = training(tmp_path, text, steps=150)
    found.train(lambda step, values: None)
    assert found.by_position().mean() < Corpus.of([text]).unigram_entropy() - 0.3


def test_a_mixer_alone_changes():
    def around(mixer):
        named = model_of(Recipe(mixer=mixer, **TINY), "torch").named_parameters()
        return sorted((tuple(x.shape) for name, x in named if re.search("mlp|feed_forward|embed", name)))

    assert len(around("attention")) == 7
    assert all(around(mixer) == around("attention") for mixer in MIXERS)


def test_mamba_starts_as_its_own_code_does():
    torch.manual_seed(0)
    named = dict(model_of(Recipe(mixer="mamba2", **TINY), "torch").named_parameters())
    steps = [functional.softplus(x) for name, x in named.items() if name.endswith("dt_bias")]
    taps = [x for name, x in named.items() if name.endswith("conv1d.weight")]
    assert len(steps) == len(taps) == 2
    assert all(0.4 < x.abs().max() <= 0.5 for x in taps), "uniform up to 1/√4"
    for dt in steps:
        assert dt.min() >= 0.999e-3
        assert dt.max() <= 0.1001


def wrong(words, message):
    done = call(*words)
    assert done.exit_code == 2, done.output
    assert re.search(message, done.output), done.output


def test_bad_input_is_said_before_anything_is_done(text, tmp_path):
    run = tmp_path / "run"
    for words, message in {
        ("--mixer", "lstm"): r"--mixer: got 'lstm'; expected one of \['ttt-linear', 'ttt-mlp', 'attention', 'mamba2'\]",
        ("--backbone", "mamba", "--mixer", "attention"): "--backbone: got 'mamba' with --mixer attention; expected a TTT mixer",
        ("--heads", 5): "--width and --heads: got 32, 5",
        ("--lr", -1): "--lr: got -1.0; expected a positive number",
        ("--steps", 0): "--steps: got 0; expected at least 1",
        ("--device", "tpu"): "--device: got 'tpu'; expected cpu or cuda",
        ("--kernel", "cuda"): "backend: got 'cuda'; expected one of",
        ("--context", 9000): "--context: got no document of 9001 bytes",
        ("--resume",): "--resume: got no run in",
    }.items():
        wrong(("train", "--out", run, "--text", text, *OPTIONS, *words), message)
        assert not run.exists()
    wrong(("train", "--text", tmp_path / "nowhere"), "--text: got .*nowhere")
    wrong(("generate", tmp_path), "got no checkpoint; expected a run of ttt train")
    wrong(("compare", tmp_path), "got no results.json; expected a run that has ended")


def test_a_run_is_not_overwritten_nor_resumed_as_another(text, tmp_path):
    run = tmp_path / "run"
    assert call("train", "--out", run, "--text", text, "--steps", 4, *OPTIONS, *EVERY).exit_code == 0
    wrong(("train", "--out", run, "--text", text, "--steps", 4, *OPTIONS), "which holds a run; expected a new folder")
    wrong(("train", "--out", run, "--text", text, "--steps", 6, *OPTIONS, "--resume"), r"another recipe \(steps: 4, 6\)")
    broken = checkpoint.newest(run) / "optimiser.safetensors"
    broken.write_bytes(broken.read_bytes()[:100])
    wrong(("train", "--out", run, "--text", text, "--steps", 4, *OPTIONS, "--resume"), "expected a whole checkpoint. Fix: remove ")
    model = checkpoint.newest(run) / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-8])
    wrong(("generate", run), "expected a whole")


def test_a_prompt_that_the_model_cannot_read(text, tmp_path):
    run = tmp_path / "run"
    assert call("train", "--out", run, "--text", text, "--steps", 2, "--mixer", "attention", *OPTIONS, *EVERY).exit_code == 0
    wrong(("generate", run, "--prompt", "x" * 30, "--tokens", 3), "--prompt: got 30 bytes and 3 to come; expected together 32 at most")
    wrong(("generate", run, "--prompt", ""), "--prompt: got nothing; expected at least one byte")
    other = tmp_path / "other"
    TTTForCausalLM(TTTConfig(vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(other)
    wrong(("generate", other), "got a vocabulary of 300; expected 256: bytes")


def test_a_full_disk_leaves_the_older_checkpoint(text, tmp_path, monkeypatch):
    first = training(tmp_path, text)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(step, values):
        if step == 4:
            monkeypatch.setattr(checkpoint, "save_file", full)

    with pytest.raises(OSError, match=r"no room for .*step-0000008: got a full disk after"):
        first.train(fill)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000004"]
    monkeypatch.undo()
    again = training(tmp_path, text)
    again.train(lambda step, values: None)
    assert again.progress.step == 8


def test_a_full_disk_is_said_in_a_line(text, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    done = call("train", "--out", tmp_path / "run", "--text", text, "--steps", 2, *OPTIONS, *EVERY)
    assert done.exit_code == 1, done.output
    assert re.search(r"no room for .*step-0000002: got .* Fix: free that much .* go on from it with --resume", done.output)
