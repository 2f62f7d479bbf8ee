"""Language models in JAX: the same as in PyTorch by the same names, what only JAX has, and checkpoints in and out of both."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import torch
from authors_jax import LAYERS, logits_of, shapes_of
from flax import nnx, serialization
from safetensors.numpy import load_file, save_file
from transformers.activations import ACT2FN

import ttt_torch.models
from ttt_jax.models import TTTForCausalLM, TTTModel
from ttt_jax.models.modules import ACTIVATIONS
from ttt_torch.models import TTTConfig
from tttcore import InvalidInput, ModelSpec
from tttcore.language_model import JAX, PYTORCH
from tttcore.tree import leaves

EXACT = {"rtol": 0, "atol": 0}
# Of float64: roundings of 2e-16, which a LayerNorm enlarges by up to 1/√ε = 1e3, in two blocks.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
PAD = 0
TOKENS = np.random.default_rng(1).integers(1, 19, (3, 11))
LENGTHS = (11, 2, 6)
MASK = np.array([[0] * (11 - n) + [1] * n for n in LENGTHS])

two_kinds = pytest.mark.parametrize(("backbone", "inner"), [("transformer", "mlp"), ("mamba", "linear")])


@pytest.fixture(autouse=True, scope="module")
def _compile_in_a_hurry():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def spec_of(backbone="mamba", inner="linear", **changes):
    sizes = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "mini_batch_size": 4}
    return ModelSpec.named("125m", backbone=backbone, inner=inner, **{**sizes, "eos_token_id": None, "pad_token_id": PAD, **changes})


def arrays_of(spec, dtype="float64"):
    """Numbers so large that every part shows in the logits."""
    rng = np.random.default_rng(0)
    return {name: (0.3 * rng.standard_normal(x) + name.endswith("norm.weight")).astype(dtype) for name, x in spec.param_shapes().items()}


@functools.cache
def model_of(*args, **changes):
    spec = spec_of(*args, **changes)
    return TTTForCausalLM.of_arrays(spec, arrays_of(spec))


@functools.cache
def torch_model_of(*args, **changes):
    spec = spec_of(*args, **changes)
    state_dict = PYTORCH.to_theirs(arrays_of(spec))
    return ttt_torch.models.TTTForCausalLM.from_ttt_lm_pytorch(state_dict, spec)


@nnx.jit
def run(model, tokens, mask=None, cache=None):
    return model(tokens, mask, cache)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, x in expected.items():
        assert found[name].dtype == x.dtype, name
        np.testing.assert_array_equal(found[name], x, err_msg=name)


def close(got, expected):
    np.testing.assert_allclose(got, expected, **CLOSE)


@two_kinds
def test_one_model_in_two_libraries(backbone, inner):
    """Logits, hidden states, loss and gradients; padding is embedded, too, and its row learns from the head alone."""
    model, other = model_of(backbone, inner), torch_model_of(backbone, inner)
    assert {name: x.shape for name, x in other.state_dict().items() if name != "lm_head.weight"} == model.spec.param_shapes()
    assert set(model.arrays()) == {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))}
    tokens = np.where(MASK, TOKENS, PAD)
    tokens[0, 3], labels = PAD, np.where(np.arange(11) == 5, -100, tokens)

    def loss(model):
        out = model(tokens, MASK, labels=labels, output_hidden_states=True)
        return out.loss, out

    (_, out), gradients = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(model)
    expected = other(torch.tensor(tokens), torch.tensor(MASK), output_hidden_states=True)
    torch.nn.functional.cross_entropy(expected.logits[:, :-1].flatten(0, 1), torch.tensor(labels[:, 1:]).flatten()).backward()
    close(out.logits, expected.logits.detach())
    for x, y in zip(out.hidden_states, expected.hidden_states, strict=True):
        close(x, y.detach())
    found = {".".join(map(str, path)): x[...] for path, x in nnx.to_flat_state(gradients)}
    for name, x in other.named_parameters():
        close(found[name], x.grad)
        x.grad = None
    with torch.no_grad():  # PyTorch's model computes the loss in float32
        np.testing.assert_allclose(out.loss, other(torch.tensor(tokens), torch.tensor(MASK), labels=torch.tensor(labels)).loss, rtol=1e-6)


@two_kinds
def test_generation_is_pytorchs(backbone, inner):
    model, other = model_of(backbone, inner), torch_model_of(backbone, inner)
    padded = np.where(MASK, TOKENS, PAD)
    expected = other.generate(torch.tensor(padded), attention_mask=torch.tensor(MASK), max_new_tokens=9, do_sample=False).numpy()
    np.testing.assert_array_equal(model.generate(padded, MASK, max_new_tokens=9), expected)
    np.testing.assert_array_equal(model.generate(padded, MASK, max_new_tokens=9, prefill_chunk_size=8), expected)


def test_sampling():
    model, key, many = model_of(num_hidden_layers=1), jax.random.key(3), np.broadcast_to(TOKENS[:1], (1000, 11))
    greedy = model.generate(many, max_new_tokens=2)
    np.testing.assert_array_equal(model.generate(many, max_new_tokens=2, key=key, top_k=1), greedy)
    drawn = model.generate(many, max_new_tokens=2, key=key, temperature=2.0, top_k=3)
    np.testing.assert_array_equal(drawn, model.generate(many, max_new_tokens=2, key=key, temperature=2.0, top_k=3))
    logits = np.asarray(run(model, TOKENS[:1]).logits[0, -1]) / 2
    p = np.where(logits >= np.sort(logits)[-3], np.exp(logits - logits.max()), 0)
    p /= p.sum()
    shares = np.bincount(drawn[:, 11], minlength=19) / len(many)
    # A share of n draws is off by √(p(1 − p)/n); five of these is once in a million.
    assert np.all(np.abs(shares - p) <= 5 * np.sqrt(p * (1 - p) / len(many)))
    assert np.sum(shares > 0) == 3
    first, second = np.asarray(model.generate(many, max_new_tokens=2, key=key, temperature=1e9))[:, 11:].T
    again = np.mean(first == second)  # of draws from all V tokens alike, that do not know each other
    assert abs(again - 1 / 19) <= 5 * np.sqrt(1 / 19 * 18 / 19 / len(many))


def test_behind_its_end_a_row_is_padding():
    greedy = np.asarray(model_of(num_hidden_layers=1).generate(TOKENS, max_new_tokens=8))[:, 11:]
    end = int(greedy[0, 2])
    places = np.array([list(row).index(end) if end in row else 8 for row in greedy])
    assert places.min() < places.max(), "rows end at different places"
    behind, never = np.arange(8) > places[:, None], next(token for token in range(1, 19) if token not in greedy)
    for ends, pad, filled in (((end, never), PAD, PAD), (end, None, end)):
        found = model_of(num_hidden_layers=1, eos_token_id=ends, pad_token_id=pad).generate(TOKENS, max_new_tokens=8)
        np.testing.assert_array_equal(found[:, 11:], np.where(behind, filled, greedy))


def test_pieces_and_padding_change_nothing():
    model = model_of(num_hidden_layers=1)
    whole, padded = run(model, TOKENS).logits, run(model, np.where(MASK, TOKENS, PAD), MASK)
    cache, logits, sizes = None, [], []
    for start, stop in ((0, 1), (1, 6), (6, 11)):
        out = run(model, TOKENS[:, start:stop], None, cache)
        np.testing.assert_array_equal(out.logits, run(model, TOKENS[:, start:stop], None, cache).logits, "a cache is a value")
        cache = out.cache
        logits.append(out.logits)
        sizes.append(sum(x.nbytes for x in leaves(cache)))
    close(jnp.concatenate(logits, 1), whole)
    assert len(set(sizes)) == 1, "the size is constant"
    # Two columns more, by a mask of all columns and with padding between.
    mask = np.concatenate([MASK, [[1, 1], [0, 1], [1, 0]]], 1)
    later = run(model, TOKENS[:, :2], mask, padded.cache).logits
    once = run(model, np.concatenate([np.where(MASK, TOKENS, PAD), TOKENS[:, :2]], 1), mask).logits
    close(later[mask[:, 11:] == 1], once[:, 11:][mask[:, 11:] == 1])
    close(padded.logits[2, 5:], model(TOKENS[2:, 5:]).logits[0])


def test_outputs_in_part():
    model = model_of()
    whole = model(TOKENS, output_hidden_states=True)
    close(model(TOKENS, logits_to_keep=2).logits, whole.logits[:, -2:])
    close(model(inputs_embeds=whole.hidden_states[0]).logits, whole.logits)
    assert isinstance(model.model, TTTModel)
    close(model.model(TOKENS).last_hidden_state, whole.hidden_states[-1])
    assert model(TOKENS).hidden_states is None
    assert model(TOKENS).loss is None


def test_remat_changes_no_gradient():
    spec = spec_of(num_hidden_layers=1)
    plain, remat = (TTTForCausalLM.of_arrays(spec, arrays_of(spec), remat=remat) for remat in (False, True))

    def loss(model):
        return model(TOKENS, labels=TOKENS).loss

    program = nnx.jit(nnx.grad(loss))
    for x, y in zip(jax.tree.leaves(program(remat)), jax.tree.leaves(program(plain)), strict=True):
        close(x, y)

    def kept(model):
        """Bytes of what the backward pass keeps."""
        graph, params = nnx.split(model)
        pull_back = jax.eval_shape(lambda params: jax.vjp(lambda params: loss(nnx.merge(graph, params)), params)[1], params)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull_back))

    assert kept(remat) < kept(plain)
    np.testing.assert_array_equal(remat.generate(TOKENS, max_new_tokens=2), plain.generate(TOKENS, max_new_tokens=2))


def test_fresh_parameters():
    spec = spec_of(initializer_range=0.5, tie_word_embeddings=False, vocab_size=400, hidden_size=32)
    found, again = (TTTForCausalLM(spec, rngs=nnx.Rngs(3)).arrays() for _ in range(2))
    assert_same(found, again)
    assert {name: x.shape for name, x in found.items()} == spec.param_shapes()
    assert {x.dtype for x in found.values()} == {jnp.dtype("float32")}
    torch.manual_seed(0)
    other = ttt_torch.models.TTTForCausalLM(TTTConfig(**spec.to_dict())).state_dict()
    for name, x in found.items():
        y = other[name].numpy()
        if y.std() == 0:
            np.testing.assert_array_equal(x, y, err_msg=name)
        else:  # of n numbers the deviation is off by 1/√(2n) of it, in each of the two
            assert abs(x.std() / y.std() - 1) < 5 / np.sqrt(x.size), name
            assert abs(x.mean() - y.mean()) < 5 * y.std() * np.sqrt(2 / x.size), name
    np.testing.assert_array_equal(found["model.embed_tokens.weight"][PAD], 0)
    assert TTTForCausalLM(spec_of(), param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)).arrays()["model.norm.weight"].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name):
    x = np.linspace(-4, 4, 33)
    # Some of transformers' have constants of float32.
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), ACT2FN[name](torch.tensor(x)), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("dtype", "tied"), [("float32", True), ("float64", False), ("bfloat16", True)])
def test_folders_go_both_ways_bit_for_bit(tied, dtype, tmp_path):
    spec = spec_of(tie_word_embeddings=tied, eos_token_id=(2, 3))
    with jax.enable_x64(False):  # nothing is rounded, whatever the flag says
        model = TTTForCausalLM.of_arrays(spec, arrays_of(spec), dtype=jnp.dtype(dtype))
        model.save_pretrained(tmp_path / "jax")
        assert sorted(path.name for path in (tmp_path / "jax").iterdir()) == ["config.json", "model.safetensors"]
        other, info = ttt_torch.models.TTTForCausalLM.from_pretrained(tmp_path / "jax", output_loading_info=True)
        assert not any(info.values())
        assert other.dtype == getattr(torch, dtype)
        assert other.config.model_spec == spec
        assert (other.lm_head.weight is other.model.embed_tokens.weight) == tied
        other.save_pretrained(tmp_path / "torch")
        back = TTTForCausalLM.from_pretrained(tmp_path / "torch")
        assert back.spec == spec
        assert_same(back.arrays(), {name: np.asarray(x) for name, x in model.arrays().items()})
    assert_same(load_file(tmp_path / "jax/model.safetensors"), load_file(tmp_path / "torch/model.safetensors"))
    assert TTTForCausalLM.from_pretrained(tmp_path / "jax", dtype=jnp.float16).arrays()["model.norm.weight"].dtype == jnp.float16
    # Both read tokens in that dtype; a logit is a sum of C products, and roundings of two blocks come before it.
    rounding = 100 * float(jnp.finfo(dtype).eps)
    with torch.no_grad():
        expected = other(torch.tensor(TOKENS)).logits.double().numpy()
    np.testing.assert_allclose(run(back, TOKENS).logits.astype("float64"), expected, rtol=0, atol=rounding * np.abs(expected).max())


def test_a_checkpoint_in_pieces(tmp_path):
    torch_model_of().save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same(TTTForCausalLM.from_pretrained(tmp_path).arrays(), model_of().arrays())


def both(folder):
    """Both packages' ways to read a folder."""
    return [lambda: TTTForCausalLM.from_pretrained(folder), lambda: ttt_torch.models.TTTForCausalLM.from_pretrained(folder)]


def test_a_folder_is_read_whole_or_not_at_all(tmp_path):
    model_of().save_pretrained(tmp_path)
    tensors, file = load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors"
    missing = [name for name in tensors if name.endswith("ffn_norm.weight")]
    save_file({name: x for name, x in tensors.items() if name not in missing} | {"surprise": np.ones(1)}, file, {"format": "pt"})
    says = f"tensors of {tmp_path}: got 1 unused: surprise; 2 missing: model.layers.{{0,1}}.ffn_norm.weight; expected exactly"
    for read in both(tmp_path):
        with pytest.raises(InvalidInput, match="^" + re.escape(says)):
            read()
    save_file(tensors | {"model.norm.weight": np.ones(9)}, file, {"format": "pt"})
    for read in both(tmp_path):
        with pytest.raises(InvalidInput, match=re.escape("1 of other shapes: model.norm.weight (9,) instead of (16,)")):
            read()
    model_of().save_pretrained(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    for read in both(tmp_path):
        with pytest.raises(InvalidInput, match=r"expected a (file of safetensors|safetensors file)\. Fix: copy it a"):
            read()
    file.unlink()
    with pytest.raises(InvalidInput, match=r"model.safetensors: got FileNotFoundError.* expected a file of safetensors"):
        TTTForCausalLM.from_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "ttt"}))
    with pytest.raises(InvalidInput, match=r"got 'ttt'; expected 'tttcore'\. Fix: read an authors' checkpoint with from_ttt_lm_pytorch"):
        TTTForCausalLM.from_pretrained(tmp_path)
    config.write_text("{")
    with pytest.raises(InvalidInput, match=r"config.json: got JSONDecodeError.* expected a file of JSON"):
        TTTForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match=r"config.json: got FileNotFoundError.* Fix: pass a folder that save_pretrained wrote"):
        TTTForCausalLM.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("given", [torch.tensor, np.asarray, jnp.asarray], ids=["torch", "numpy", "jax"])
def test_ttt_lm_pytorchs_checkpoints(given):
    model = model_of(tie_word_embeddings=False)
    theirs = {name: given(x) for name, x in PYTORCH.to_theirs(model.arrays()).items()}
    found, report = TTTForCausalLM.from_ttt_lm_pytorch(theirs, model.spec.to_dict() | {"model_type": "ttt"}, output_loading_info=True)
    assert_same(found.arrays(), model.arrays())
    assert report.reshaped["model.layers.1.conv.conv.weight"] == "model.layers.1.conv.weight"
    narrow = {name: torch.tensor(np.asarray(x)).bfloat16() for name, x in theirs.items()}
    found = TTTForCausalLM.from_ttt_lm_pytorch(narrow, model.spec)
    assert_same(found.arrays(), {name: x.astype(jnp.bfloat16) for name, x in model.arrays().items()})
    assert TTTForCausalLM.from_ttt_lm_pytorch(theirs, model.spec, dtype="float32").arrays()["lm_head.weight"].dtype == jnp.float32
    del theirs["model.norm.weight"]
    with pytest.raises(InvalidInput, match=r"state_dict: got 1 missing: model\.norm\.weight; expected"):
        TTTForCausalLM.from_ttt_lm_pytorch(theirs, model.spec)


def jax_config(block, tied, pre_conv):
    sizes = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "mini_batch_size": 4}
    rest = {
        "conv_width": 3,
        "ttt_base_lr": 0.7,
        "rope_theta": 500.0,
        "rms_norm_eps": 1e-3,
        "max_sequence_length": 12,
        "remat_block": "",
        "fcm_min_ratio": 0,
    }
    return {**sizes, **rest, "seq_modeling_block": block, "tie_word_embeddings": tied, "pre_conv": pre_conv}


@pytest.mark.parametrize(("block", "pre_conv"), list(zip(LAYERS, (True, False, False, True), strict=True)))
def test_ttt_lm_jaxs_checkpoints(block, pre_conv):
    """Their model in NumPy, written apart from everything here, has the logits of ours in both libraries; and back go the same arrays."""
    config = jax_config(block, tied=pre_conv, pre_conv=pre_conv)
    rng = np.random.default_rng(2)
    theirs = {name: 0.3 * rng.standard_normal(x) + name.endswith(("norm/kernel", "scale", "ln_f/kernel")) for name, x in shapes_of(config).items()}
    expected = logits_of(theirs, config, TOKENS[0])
    nested = {"params": {}}
    for name, x in theirs.items():
        *path, last = ("params", *name.split("/", name.count("/") - 1)) if "ttt_norm" in name else ("params", *name.split("/"))
        branch = nested
        for step in path:
            branch = branch.setdefault(step, {})
        branch[last] = x
    model = TTTForCausalLM.from_ttt_lm_jax(nested, config)
    close(run(model, TOKENS[:1]).logits[0], expected)
    assert {name: x.tobytes() for name, x in JAX.to_theirs(model.arrays()).items()} == {name: x.tobytes() for name, x in theirs.items()}
    tuples = {tuple(name.split("/")): x for name, x in theirs.items()}
    other, report = ttt_torch.models.TTTForCausalLM.from_ttt_lm_jax(tuples, config, output_loading_info=True)
    with torch.no_grad():
        close(other(torch.tensor(TOKENS[:1])).logits[0], expected)
    assert report.reshaped["model/h/0/feed_forward/w2/kernel"] == "model.layers.0.mlp.down_proj.weight"
    narrow = {name: jnp.asarray(x, jnp.bfloat16) for name, x in theirs.items()}
    ours = model.arrays()
    assert_same(TTTForCausalLM.from_ttt_lm_jax(narrow, config).arrays(), {name: x.astype(jnp.bfloat16) for name, x in ours.items()})
    found = ttt_torch.models.TTTForCausalLM.from_ttt_lm_jax(narrow, config).state_dict()
    for name, x in ours.items():
        assert torch.equal(found[name], torch.tensor(np.asarray(x)).bfloat16()), name


def test_what_ttt_lm_jax_has_and_we_have_not():
    config = jax_config("ttt_linear", tied=True, pre_conv=True)
    theirs = {name: np.ones(x) for name, x in shapes_of(config).items()}
    for cls in (TTTForCausalLM, ttt_torch.models.TTTForCausalLM):
        with pytest.raises(InvalidInput, match="got 'self_attention'"):
            cls.from_ttt_lm_jax(theirs, config | {"seq_modeling_block": "self_attention"})
        with pytest.raises(InvalidInput, match=r"^params: got 1 unused: step; 1 missing: model/ln_f/kernel; expected exactly"):
            cls.from_ttt_lm_jax({name: x for name, x in theirs.items() if name != "model/ln_f/kernel"} | {"step": np.ones(1)}, config)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda model: model(), "got neither; expected one of them"),
        (lambda model: model(TOKENS, cache=()), "cache: got 0; expected a tuple of 2 memories"),
        (lambda model: model(TOKENS, np.ones((2, 11))), r"shape of attention_mask: got \(2, 11\); expected \(3, 11\) or more columns"),
        (lambda model: model(TOKENS + 8), "input_ids: got tokens from 9 to 26; expected 0 … 18"),
        (lambda model: model(TOKENS[0]), r"input_ids: got int64\(11,\); expected integers \[B, T\]"),
        (lambda model: model(TOKENS * 1.0), r"input_ids: got float64\(3, 11\); expected integers"),
        (lambda model: model.generate(TOKENS, max_new_tokens=0), "max_new_tokens: got 0; expected 1 or more"),
        (lambda model: model.generate(TOKENS[:, :0], max_new_tokens=1), r"input_ids: got \(3, 0\); expected \[B, T\] with T ≥ 1"),
        (lambda model: model.generate(TOKENS, max_new_tokens=1, top_k=3), "got temperature=1.0, top_k=3 and no key; expected a key"),
        (lambda model: model.generate(TOKENS, max_new_tokens=1, temperature=0.0), "temperature: got 0.0; expected a positive number"),
        (lambda model: model.generate(TOKENS, MASK[:, ::-1], max_new_tokens=1), "got a prompt that ends with padding"),
        (lambda model: model.generate(TOKENS, MASK[:, 1:], max_new_tokens=1), r"got \(3, 10\); expected \(3, 11\)"),
        (lambda _: TTTForCausalLM(spec_of(hidden_act="mish"), rngs=nnx.Rngs(0)), "hidden_act: got 'mish'; expected one of"),
    ],
)
def test_errors(make, says):
    with pytest.raises(InvalidInput, match=says):
        make(model_of())


def test_float64_needs_no_flag():
    model = model_of()
    expected = model(TOKENS).logits
    with jax.enable_x64(False):
        assert model(TOKENS).logits.dtype == jnp.float64
        close(model(TOKENS).logits, expected)
        np.testing.assert_array_equal(model.generate(TOKENS, max_new_tokens=3)[:, 11], np.argmax(expected[:, -1], -1))


def test_importing_it_imports_no_other_framework():
    program = "import sys, ttt_jax.models; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
    program = "import sys; sys.modules['safetensors'] = None\nimport ttt_jax.models"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "got no package 'safetensors'; expected it installed. Fix: pip install 'tttcore[jax]'." in done.stderr


def test_the_page_runs(tmp_path):
    text = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "jax" in block]
    assert len(blocks) == 4
    scope = {"__name__": "models"}
    with jax.enable_x64(False):
        for block in blocks:
            exec(compile(block, "models.md", "exec"), scope)
        tokens = jax.random.randint(jax.random.key(0), (2, 100), 1, 256)
        losses = [scope["loss"], *(scope["step"](scope["model"], scope["optimiser"], tokens) for _ in range(8))]
    assert abs(losses[0] - np.log(256)) < 0.1
    assert losses[-1] < losses[0] - 0.1, "steps of training lower the loss"
    # A train state as their checkpointer writes it.
    model, path = model_of(), tmp_path / "streaming_train_state"
    arrays = {("params", "params", *name.split("/")): x for name, x in JAX.to_theirs(model.arrays()).items()}
    with path.open("wb") as file:
        for key, x in {("step",): np.array(3), ("opt_state", "0", "count"): np.array(3), **arrays}.items():
            file.write(msgpack.packb((key, serialization.to_bytes(x))))
    ours = ("share_qk", "use_gate", "ttt_layer_type", "conv_kernel", "hidden_act")
    config = {name: value for name, value in model.spec.to_dict().items() if name not in ours}
    config |= {"seq_modeling_block": "ttt_linear", "conv_width": 4}
    assert_same(scope["load_streaming"](path, config).arrays(), model.arrays())
