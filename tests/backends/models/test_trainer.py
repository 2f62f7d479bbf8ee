"""transformers' Trainer on a language model."""

import re
from pathlib import Path

import pytest
import torch
from small_models import EXACT, config_of
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments

from ttt_torch.models import TTTForCausalLM

# Float32 roundings of 6e-8 in the loss' gradients, which Adam's first steps, of the gradients' signs, enlarge where they are near 0.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def rows_of(count=8):
    """Patterns of five tokens, three times; the last ones of some rows do not count."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        ids = torch.randint(1, 19, (5,), generator=generator).repeat(3)
        labels = torch.where(torch.arange(15) < 15 - number, ids, -100)
        rows.append({"input_ids": ids, "labels": labels, "attention_mask": (labels != -100).long()})
    return rows


def trained(folder, resume=None, **changes):
    torch.manual_seed(0)
    model = TTTForCausalLM(config_of(num_hidden_layers=1))
    same = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 1, "logging_steps": 1, "learning_rate": 1e-2, "max_steps": 12}
    steps = {"save_strategy": "steps", "save_steps": 6, "eval_strategy": "steps", "eval_steps": 6, "per_device_train_batch_size": 4}
    trainer = Trainer(model, TrainingArguments(str(folder), **same | steps | changes), train_dataset=rows_of(), eval_dataset=rows_of())
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_the_pages_example(tmp_path):
    text = (Path(__file__).parents[3] / "docs/models.md").read_text(encoding="utf-8")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "TrainingArguments" in block]
    scope = {"torch": torch}
    exec(compile(example, "models.md", "exec"), scope)
    trainer = scope["train"](TTTForCausalLM(config_of()), rows_of(), tmp_path)
    assert trainer.state.global_step == 4
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def parameters_of(trainer):
    return dict(trainer.model.named_parameters())


def test_it_learns_evaluates_and_goes_on_from_a_checkpoint(tmp_path):
    trainer = trained(tmp_path)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.2
    assert evaluated[1] < evaluated[0]
    assert trainer.predict(rows_of()).predictions.shape == (8, 15, 19), "logits and no cache"
    resumed = trained(tmp_path, str(tmp_path / "checkpoint-6"))
    torch.testing.assert_close(parameters_of(resumed), parameters_of(trainer), **EXACT)
    loaded = TTTForCausalLM.from_pretrained(tmp_path / "checkpoint-12")
    torch.testing.assert_close(dict(loaded.named_parameters()), parameters_of(trainer), **EXACT)


def test_checkpointing_by_its_arguments_changes_nothing(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("transformers.modeling_utils.checkpoint", lambda *args, **options: calls.append(1) or checkpoint(*args, **options))
    plain = trained(tmp_path / "plain", max_steps=3)
    assert not calls
    again = trained(tmp_path / "again", max_steps=3, activation_checkpointing=True)
    assert calls
    torch.testing.assert_close(parameters_of(again), parameters_of(plain), **EXACT)


def test_a_step_of_two_halves_is_that_of_the_whole(tmp_path):
    """By num_items_in_batch: a mean of the halves' means would weigh tokens of halves with fewer labels more."""
    whole = trained(tmp_path / "whole", max_steps=2)
    halves = trained(tmp_path / "halves", max_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    torch.testing.assert_close(parameters_of(halves), parameters_of(whole), **CLOSE)
    first = [next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry) for trainer in (whole, halves)]
    assert first[0] == pytest.approx(first[1], rel=1e-5)
