"""What a language model is without a framework: its specification, its names in other code bases, and checkpoints whole or not at all."""

import re
import types

import ml_dtypes
import numpy as np
import pytest
from authors_jax import LAYERS, shapes_of

from tttcore import InvalidInput, ModelSpec, UnknownKeyword
from tttcore.files import whole
from tttcore.language_model import JAX, OURS, PYTORCH, from_config, from_jax_config
from tttcore.language_model.configs import BOOKKEEPING, FIELDS, JAX_BOOKKEEPING
from tttcore.language_model.loading import dtype_of, read, together, without_prefix
from tttcore.language_model.spec import BACKBONES, SIZES

SMALL = {"vocab_size": 7, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "mini_batch_size": 3}
JAX_CONFIG = {**SMALL, "conv_width": 3, "ttt_base_lr": 0.5, "rope_theta": 500.0, "rms_norm_eps": 1e-3}
KINDS = [(backbone, inner, tied) for backbone in BACKBONES for inner in ("linear", "mlp") for tied in (True, False)]
every_kind = pytest.mark.parametrize(("backbone", "inner", "tied"), KINDS)


def spec_of(backbone="mamba", inner="mlp", tied=False, **changes):
    return ModelSpec.named("125m", backbone=backbone, inner=inner, **SMALL, conv_kernel=3, tie_word_embeddings=tied, **changes)


def arrays_of(spec, dtype="float32"):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in spec.param_shapes().items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, x in expected.items():
        assert found[name].dtype == x.dtype, name
        np.testing.assert_array_equal(found[name], x, err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", ml_dtypes.bfloat16])
@pytest.mark.parametrize("naming", [OURS, PYTORCH, JAX], ids=["ours", "pytorch", "jax"])
@every_kind
def test_there_and_back(backbone, inner, tied, naming, dtype):
    spec = spec_of(backbone, inner, tied)
    ours = arrays_of(spec, dtype)
    theirs = naming.to_theirs(ours)
    found, report = read(theirs, spec, naming)
    assert_same(found, ours)
    assert all(naming.theirs(name)[0] == their for their, name in report.reshaped.items())
    assert bool(report.reshaped) == (naming is not OURS)
    assert (report.unused, report.missing, report.mismatched) == ((), (), {})
    assert dtype_of(theirs, naming) == np.dtype(dtype).name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("pre_conv", [True, False])
@pytest.mark.parametrize("block", LAYERS)
def test_the_tree_of_ttt_lm_jax(block, pre_conv, tied):
    config = {**JAX_CONFIG, "seq_modeling_block": block, "pre_conv": pre_conv, "tie_word_embeddings": tied}
    spec = from_jax_config(config)
    rich = not block.endswith("_base")
    assert (spec.ttt_layer_type, spec.share_qk, spec.use_gate) == ("mlp" if "mlp" in block else "linear", rich, rich)
    assert (spec.pre_conv, spec.ttt_base_lr, spec.rope_theta, spec.rms_norm_eps) == (pre_conv, 0.5, 500.0, 1e-3)
    assert spec.conv_kernel == (3 if rich or pre_conv else 4)
    theirs = JAX.to_theirs(arrays_of(spec))
    assert {name: x.shape for name, x in theirs.items()} == shapes_of(config)


def test_the_tree_may_be_nested_or_flat():
    paths = {"model/h/0/seq_norm/kernel": 1, "lm_head/kernel": 2}
    nested = {"model": {"h": {"0": {"seq_norm": {"kernel": 1}}}}, "lm_head": {"kernel": 2}}
    tuples = {("params", "params", "model", "h", "0", "seq_norm", "kernel"): 1, ("params", "params", "lm_head", "kernel"): 2}
    for tree in (paths, nested, {"params": nested}, {"params": {"params": nested}}, tuples):
        assert without_prefix(tree) == paths
    assert without_prefix({"params": {"params": nested}, "step": 3}) == {"params/params/" + name: x for name, x in paths.items()} | {"step": 3}
    assert without_prefix({}) == {}


@pytest.mark.parametrize("naming", [OURS, PYTORCH, JAX], ids=["ours", "pytorch", "jax"])
def test_a_tied_head_may_be_there_but_not_another(naming):
    spec = spec_of(tied=True)
    theirs = naming.to_theirs(arrays_of(spec))
    head, layout = naming.theirs("lm_head.weight")
    theirs[head] = layout.to_theirs(theirs[naming.theirs("model.embed_tokens.weight")[0]])
    assert_same(read(theirs, spec, naming)[0], arrays_of(spec))
    theirs[head] = theirs[head] + 1
    with pytest.raises(InvalidInput, match=rf"tensors\['{head}'\]: got other values .* Fix: set tie_word_embeddings=False"):
        read(theirs, spec, naming, "tensors")


def test_what_does_not_fit_is_listed():
    spec = spec_of()
    theirs = JAX.to_theirs(arrays_of(spec))
    for number in range(2):
        del theirs[f"model/h/{number}/seq_norm/kernel"]
    theirs |= {"opt_state/0": np.zeros(1), "step": np.zeros(1), "model/ln_f/kernel": np.zeros(9)}
    says = "got 2 unused: opt_state/0, step; 2 missing: model/h/{0,1}/seq_norm/kernel; 1 of other shapes: model/ln_f/kernel (9,) instead of (8,);"
    with pytest.raises(InvalidInput, match="^params: " + re.escape(says)):
        read(theirs, spec, JAX, "params")


def test_names_together():
    names = ["head", "a.layers.0.x", "a.layers.0.y", "a.layers.11.x", "a.1", "h/3/b (2, 1) instead of (1,)"]
    assert together(names) == "head, a.layers.{0,11}.x, a.layers.0.y, a.1, h/3/b (2, 1) instead of (1,)"


def test_the_papers_models():
    for size, sizes in SIZES.items():
        spec = ModelSpec.named(size, inner="mlp", backbone="mamba", rope_theta=5.0)
        assert {name: getattr(spec, name) for name in sizes} == sizes
        assert (spec.ttt_base_lr, spec.rope_theta, spec.layer_spec.gate, spec.pre_conv) == (0.1, 5.0, True, True)
    assert ModelSpec.named("1.3b") == ModelSpec()


def test_a_spec_is_a_value():
    spec = spec_of(eos_token_id=[2, 3])
    assert spec.eos_token_id == (2, 3)
    assert ModelSpec(**spec.to_dict()) == spec
    assert hash(ModelSpec(**spec.to_dict())) == hash(spec)
    assert spec.to_dict()["eos_token_id"] == [2, 3]


def test_configurations_of_the_authors():
    spec = spec_of()
    config = {**spec.to_dict(), **dict.fromkeys(BOOKKEEPING, 1), "_name_or_path": "x"}
    assert from_config(config) == from_config(types.SimpleNamespace(**config)) == from_config(spec) == spec
    ours = {**JAX_CONFIG, "seq_modeling_block": "ttt_mlp", "pre_conv": True, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    expected = from_jax_config(ours)
    assert expected == from_jax_config({**ours, **dict.fromkeys(JAX_BOOKKEEPING - FIELDS, 1)}) == from_jax_config(expected)
    assert not expected.tie_word_embeddings
    needed = {name: ours[name] for name in ("seq_modeling_block", "pre_conv", "mini_batch_size", "ttt_base_lr", "rope_theta", "conv_width")}
    default = from_jax_config(needed)
    assert (default.hidden_size, default.intermediate_size, default.num_hidden_layers, default.num_attention_heads) == (4096, 11008, 32, 32)
    for name in needed:
        with pytest.raises(InvalidInput, match=f"config: got no '{name}'"):
            from_jax_config({key: value for key, value in needed.items() if key != name})


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: ModelSpec(hidden=3), UnknownKeyword, "ModelSpec: unknown keyword: got .'hidden'.; .* Fix: use 'hidden_act'"),
        (lambda: ModelSpec(vocab_size=True), InvalidInput, "vocab_size: got True; expected an integer ≥ 1"),
        (lambda: ModelSpec(hidden_size=30), InvalidInput, "got width=30, heads=32"),
        (lambda: ModelSpec.named("2b"), InvalidInput, "size: got '2b'"),
        (lambda: from_config({"seq_modeling_block": "ttt_mlp"}), UnknownKeyword, "config: unknown keyword: got .'seq_modeling_block'."),
        (lambda: from_jax_config({"seq_modeling_block": "self_attention"}), InvalidInput, "got 'self_attention'; expected one of .'ttt_linear'"),
        (lambda: from_jax_config({"embd_pdrop": 0.1}), InvalidInput, "embd_pdrop: got 0.1; expected 0: there is no dropout here"),
        (lambda: from_jax_config({"share_qk": True}), UnknownKeyword, "config: unknown keyword: got .'share_qk'."),
    ],
)
def test_errors(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(FileNotFoundError, match="nowhere"), whole(path) as file:
        file.write_text((tmp_path / "nowhere").read_text())
    assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [("a", "old")]
    with whole(path) as file:
        file.write_text("new")
        assert path.read_text() == "old"
    assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [("a", "new")]
