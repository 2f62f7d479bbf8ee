"""Checkpoints of language models: whole when saved, whole when loaded, or an error and everything as it was."""

import errno
import os
import shutil
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import EXACT, model_of
from transformers import AutoModel

from ttt_torch.models import TTTForCausalLM, TTTModel
from tttcore import InvalidInput

NORM = "model.norm.weight"


@pytest.fixture
def saved(tmp_path):
    """A model and the file of its weights."""
    model = model_of()
    model.save_pretrained(tmp_path)
    return model, tmp_path / "model.safetensors"


def changed(file, function):
    tensors = load_file(file)
    function(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(model, other):
    torch.testing.assert_close(dict(other.named_parameters()), dict(model.named_parameters()), **EXACT)


def test_shards_of_an_older_save_go_when_the_new_one_is_there(saved):
    model, file = saved
    (file.parent / "README.md").write_text("mine")
    model.save_pretrained(file.parent, max_shard_size="10KB")
    names = os.listdir(file.parent)
    assert "model.safetensors" not in names, "transformers would load it instead of the shards"
    assert len([name for name in names if "-of-" in name]) > 1
    assert "model.safetensors.index.json" in names
    same(model, TTTForCausalLM.from_pretrained(file.parent))
    model.save_pretrained(file.parent)
    assert sorted(os.listdir(file.parent)) == ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    same(model, TTTForCausalLM.from_pretrained(file.parent))


def test_a_save_that_fails_leaves_the_old_one(saved, monkeypatch):
    model, file = saved
    before = bytes_of(file.parent)
    with torch.no_grad():
        model.model.norm.weight.add_(1)

    def full(*args, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.modeling_utils.safe_save_file", full)
        with pytest.raises(OSError, match=r"no room for .*: got a full disk after .* what is there is as it was"):
            model.save_pretrained(file.parent, max_shard_size="10KB")
    assert bytes_of(file.parent) == before
    size = sum(x.nbytes for x in model.parameters())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=size - 1))
    with pytest.raises(OSError, match=f"got {size - 1} bytes free after 0; expected {size} bytes. Fix: free that much on its disk"):
        model.save_pretrained(file.parent)
    assert bytes_of(file.parent) == before


def test_other_processes_write_nothing(saved, tmp_path):
    """Not where the main one is about to write, either."""
    model, file = saved
    (tmp_path / f".{tmp_path.name}.partial").mkdir()
    (tmp_path / f".{tmp_path.name}.partial" / "shard").write_text("half")
    file.unlink()
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not file.exists()
    assert (tmp_path / f".{tmp_path.name}.partial" / "shard").read_text() == "half"


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_file_is_named(saved, damage, shards):
    model, file = saved
    if shards:
        model.save_pretrained(file.parent, max_shard_size="10KB")
        file = sorted(file.parent.glob("model-*.safetensors"))[1]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        InvalidInput, match=rf"checkpoint {file}: got a file that cannot be read \(.*\); expected a safetensors file. Fix: copy it again"
    ):
        TTTForCausalLM.from_pretrained(file.parent)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop(NORM), f"got 1 missing: {NORM}; expected exactly"),
        (lambda tensors: tensors.update(surprise=torch.ones(1)), "got 1 unused: surprise; expected exactly"),
        (lambda tensors: tensors.update({NORM: torch.ones(3)}), rf"got 1 of other shapes: {NORM} \(3,\) instead of \(16,\); expected exactly"),
    ],
)
def test_what_does_not_fit_is_refused_unless_asked_for(saved, change, says):
    model, file = saved
    changed(file, change)
    with pytest.raises(InvalidInput, match=says) as caught:
        TTTForCausalLM.from_pretrained(file.parent)
    assert caught.value.__notes__ == ["strict=False takes what fits and draws the rest anew."]
    loaded = TTTForCausalLM.from_pretrained(file.parent, strict=False)
    torch.testing.assert_close(loaded.lm_head.weight, model.lm_head.weight, **EXACT)


def test_mismatched_sizes_may_be_ignored_alone(saved):
    _, file = saved
    changed(file, lambda tensors: tensors.update({NORM: torch.ones(3)}))
    _, info = TTTForCausalLM.from_pretrained(file.parent, ignore_mismatched_sizes=True, output_loading_info=True)
    assert [name for name, *_ in info["mismatched_keys"]] == [NORM]
    changed(file, lambda tensors: tensors.update(surprise=torch.ones(1)))
    with pytest.raises(InvalidInput, match="got 1 unused: surprise; expected"):
        TTTForCausalLM.from_pretrained(file.parent, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("tied", [True, False])
def test_with_and_without_the_head(tied, tmp_path):
    model = model_of(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    body = AutoModel.from_pretrained(tmp_path)
    assert type(body) is TTTModel
    same(model.model, body)
    body.save_pretrained(tmp_path / "body")
    if tied:
        same(model, TTTForCausalLM.from_pretrained(tmp_path / "body"))
    else:
        with pytest.raises(InvalidInput, match=r"got 1 missing: lm_head\.weight; expected"):
            TTTForCausalLM.from_pretrained(tmp_path / "body")
    changed(tmp_path / "model.safetensors", lambda tensors: tensors.update(surprise=torch.ones(1)))
    with pytest.raises(InvalidInput, match="got 1 unused: surprise; expected"):
        AutoModel.from_pretrained(tmp_path)
