"""LayerSpec: a frozen, hashable value with one canonical form, and four axes that take objects of one's own."""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_conformance.laws import Trial
from ttt_conformance.laws.expected import expect
from ttt_conformance.problem import Options, Problem, answer
from tttcore import SPEC_VERSION, Hidden, InvalidInput, LayerSpec, Stack, UnknownKeyword, get_backend, init
from tttcore.inner_model import ACTIVATIONS
from tttcore.loss import InnerProduct, SquaredError
from tttcore.update import MiniBatch
from tttcore.views import Projected, Projections

FORMS = ("primal", "dual", "decode")
positive = st.floats(1e-12, 1e12)


@st.composite
def specs(draw):
    """Any valid spec that can be written as JSON."""
    heads, head_dim = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    hidden = st.builds(Hidden, st.integers(1, 5), st.sampled_from(sorted(ACTIVATIONS)))
    return LayerSpec(
        width=heads * head_dim,
        heads=heads,
        inner=draw(st.sampled_from(["linear", "mlp"]) | st.builds(Stack, st.lists(hidden, max_size=3).map(tuple), st.booleans(), st.booleans())),
        loss=draw(st.sampled_from(["squared_error", "inner_product"])),
        mini_batch_size=draw(st.integers(1, 64)),
        base_lr=draw(st.none() | positive),
        share_qk=draw(st.booleans()),
        conv_width=draw(st.integers(1, 8)),
        gate=draw(st.booleans()),
        rope_theta=draw(st.none() | positive) if head_dim % 2 == 0 else None,
        eps=draw(positive),
        read_out=draw(st.sampled_from(["causal", "whole"])),
    )


@given(specs())
def test_json_round_trip(spec):
    again = LayerSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert json.loads(spec.to_json())["spec_version"] == SPEC_VERSION


@given(specs())
def test_replacing_nothing_gives_an_equal_spec(spec):
    assert dataclasses.replace(spec) == spec


def test_a_spec_is_frozen():
    spec = LayerSpec(width=8, heads=2)
    for field in dataclasses.fields(spec):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(spec, field.name, getattr(spec, field.name))


def test_specs_serve_as_keys():
    one, same, other = LayerSpec(8, 2), LayerSpec(width=8, heads=2), LayerSpec(8, 2, mini_batch_size=4)
    assert {one: "found"}[same] == "found"
    assert len({one, same, other}) == 2


@pytest.mark.parametrize(
    ("field", "given", "canonical"),
    [
        ("inner", Stack(), "linear"),
        ("inner", Stack((Hidden(4, "gelu"),)), "mlp"),
        ("inner", Stack([Hidden(np.int64(4), "gelu")]), "mlp"),
        ("inner", Stack([Hidden(2, "swiglu")]), Stack((Hidden(2, "swiglu"),))),
        ("loss", SquaredError(), "squared_error"),
        ("loss", InnerProduct(), "inner_product"),
        ("views", Projections(), "projections"),
        ("update", MiniBatch(), "mini_batch"),
        ("mini_batch_size", np.int32(4), 4),
        ("base_lr", 1, 1.0),
        ("base_lr", None, 1.0),
    ],
)
def test_one_canonical_form(field, given, canonical):
    spec, same = LayerSpec(8, 2, **{field: given}), LayerSpec(8, 2, **{field: canonical})
    assert spec == same
    assert hash(spec) == hash(same)
    assert spec.to_json() == same.to_json()
    assert getattr(spec, field) == canonical
    assert type(getattr(spec, field)) is type(canonical)


@pytest.mark.parametrize(("inner", "base_lr"), [("linear", 1.0), ("mlp", 0.1), (Stack((Hidden(2, "swiglu"),)), 0.1)])
def test_base_lr_defaults_to_the_papers(inner, base_lr):
    assert LayerSpec(8, 2, inner=inner).base_lr == base_lr
    assert LayerSpec(8, 2, inner=inner, base_lr=0.3).base_lr == 0.3


@pytest.mark.parametrize("inner", ["linear", "mlp", Stack((Hidden(3, "swiglu"), Hidden(1, "silu")))])
@pytest.mark.parametrize("share_qk", [False, True])
@pytest.mark.parametrize("gate", [False, True])
def test_init_has_every_parameter_of_the_spec(inner, share_qk, gate):
    spec = LayerSpec(12, 3, inner=inner, share_qk=share_qk, gate=gate)
    params = init(spec, seed=1)
    assert {name: x.shape for name, x in params.items()} == spec.param_shapes()
    assert list(spec.param_shapes())[: len(spec.inner_shapes())] == list(spec.inner_shapes())
    for name, x in init(spec, seed=1, dtype=np.float64).items():
        np.testing.assert_array_equal(x.astype(np.float32), params[name])
    assert any((init(spec, seed=2)[name] != x).any() for name, x in params.items())


def test_a_gated_stack_has_twice_the_columns():
    shapes = LayerSpec(12, 3, inner=Stack((Hidden(3, "swiglu"), Hidden(1, "silu")))).inner_shapes()
    assert shapes["W1"] == (3, 4, 24)
    assert shapes["b1"] == (3, 1, 24)
    assert shapes["W2"] == (3, 12, 4)
    assert shapes["W3"] == (3, 4, 4)
    assert "W4" not in shapes


@dataclass
class Mutable:
    """A loss that cannot be a key."""

    def __call__(self, prediction, label):
        return prediction

    def gradient(self, prediction, label):
        return prediction


BAD = {
    "width zero": ({"width": 0}, "width: got 0; expected an integer ≥ 1"),
    "width a float": ({"width": 8.0}, "width: got 8.0; expected an integer ≥ 1"),
    "width true": ({"width": True}, "width: got True; expected an integer ≥ 1"),
    "heads negative": ({"heads": -2}, "heads: got -2; expected an integer ≥ 1"),
    "width % heads": ({"heads": 3}, "got width=8, heads=3; expected width divisible by heads"),
    "K zero": ({"mini_batch_size": 0}, "mini_batch_size: got 0; expected an integer ≥ 1"),
    "K a string": ({"mini_batch_size": "16"}, "mini_batch_size: got '16'; expected an integer ≥ 1"),
    "conv_width zero": ({"conv_width": 0}, "conv_width: got 0; expected an integer ≥ 1"),
    "odd D with RoPE": ({"heads": 8}, "got odd D = width/heads = 1; expected even D"),
    "rope_theta zero": ({"rope_theta": 0.0}, "rope_theta: got 0.0; expected a positive finite number"),
    "eps zero": ({"eps": 0}, "eps: got 0; expected a positive finite number"),
    "eps nan": ({"eps": float("nan")}, "eps: got nan; expected a positive finite number"),
    "base_lr negative": ({"base_lr": -1.0}, "base_lr: got -1.0; expected a positive finite number"),
    "base_lr infinite": ({"base_lr": float("inf")}, "base_lr: got inf; expected a positive finite number"),
    "base_lr true": ({"base_lr": True}, "base_lr: got True; expected a positive finite number"),
    "base_lr a string": ({"base_lr": "1"}, "base_lr: got '1'; expected a positive finite number"),
    "share_qk an integer": ({"share_qk": 1}, "share_qk: got 1; expected True or False"),
    "gate none": ({"gate": None}, "gate: got None; expected True or False"),
    "inner unknown": ({"inner": "conv"}, "inner: got 'conv'; expected one of ['linear', 'mlp']"),
    "inner no stack": ({"inner": 3}, "inner: got int; expected a name or a tttcore.Stack"),
    "inner the class": ({"inner": Stack}, "inner: got type; expected a name or a tttcore.Stack"),
    "activation unknown": ({"inner": Stack((Hidden(4, "relu"),))}, "activation: got 'relu'; expected one of ['gelu', 'silu', 'swiglu']"),
    "expansion zero": ({"inner": Stack((Hidden(0),))}, "expansion: got 0; expected an integer ≥ 1"),
    "bias no bool": ({"inner": Stack(bias=1)}, "inner.bias: got 1; expected True or False"),
    "residual_norm no bool": ({"inner": Stack(residual_norm=None)}, "inner.residual_norm: got None; expected True or False"),
    "hidden no layer": ({"inner": Stack((4,))}, "hidden layer: got 4; expected a tttcore.Hidden"),
    "loss unknown": ({"loss": "l1"}, "loss: got 'l1'; expected one of ['inner_product', 'squared_error']"),
    "loss no loss": ({"loss": 3}, "loss: got 3; expected one of ['inner_product', 'squared_error'] or a hashable object with __call__, gradient"),
    "loss the class": ({"loss": SquaredError}, "loss: got <class 'tttcore.loss.SquaredError'>; expected one of"),
    "loss mutable": ({"loss": Mutable()}, "loss: got Mutable(); expected one of"),
    "views unknown": ({"views": "conv"}, "views: got 'conv'; expected one of ['projections']"),
    "views no views": ({"views": None}, "views: got None; expected one of ['projections'] or a hashable object with"),
    "update unknown": ({"update": "adam"}, "update: got 'adam'; expected one of ['mini_batch']"),
    "update no update": ({"update": MiniBatch().gate}, "or a hashable object with inner_shapes, layer_shapes, scale, gate"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_field_is_refused_by_name(case):
    change, message = BAD[case]
    with pytest.raises(InvalidInput) as caught:
        LayerSpec(**{"width": 8, "heads": 2} | change)
    assert message in str(caught.value)
    assert "Fix: " in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "near"),
    [("minibatch_size", "mini_batch_size"), ("num_heads", "heads"), ("channels", None), ("share_kq", "share_qk"), ("baselr", "base_lr")],
)
def test_an_unknown_keyword_names_the_nearest(keyword, near):
    with pytest.raises(UnknownKeyword) as caught:
        LayerSpec(width=8, heads=2, **{keyword: 1})
    assert f"got ['{keyword}']; expected some of [" in str(caught.value)
    assert (f"Fix: use '{near}'." if near else f"Fix: remove '{keyword}'.") in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, InvalidInput)


@pytest.mark.parametrize("version", ["0.9", "1.1", None, 1.0])
def test_another_spec_version_is_refused(version):
    fields = json.loads(LayerSpec(8, 2).to_json()) | {"spec_version": version}
    with pytest.raises(InvalidInput, match=rf"spec_version: got {version}; expected {SPEC_VERSION}\. Fix: "):
        LayerSpec.from_json(json.dumps(fields))


def test_json_of_another_kind_is_refused():
    with pytest.raises(InvalidInput, match=r"got list; expected an object\. Fix: "):
        LayerSpec.from_json("[]")
    fields = json.loads(LayerSpec(8, 2).to_json())
    with pytest.raises(UnknownKeyword, match=r"got \['epsilon'\]"):
        LayerSpec.from_json(json.dumps(fields | {"epsilon": 1}))
    with pytest.raises(UnknownKeyword, match=r"got \['width'\]"):
        LayerSpec.from_json(json.dumps(fields | {"inner": {"hidden": [{"width": 4}]}}))


# Objects of one's own on each axis.


@dataclass(frozen=True)
class PseudoHuber:
    """L = Σ √(1 + d²) − 1, d = f(k) − v."""

    def __call__(self, prediction, label):
        return np.sum(np.sqrt(1 + (prediction - label) ** 2) - 1, axis=-1)

    def gradient(self, prediction, label):
        d = prediction - label
        return d / np.sqrt(1 + d * d)


@dataclass(frozen=True)
class Slices:
    """The views are the input itself in three scales; the output is the input plus the heads."""

    def param_shapes(self, spec):
        return {"scales": (3, spec.width)}

    def project(self, spec, params, x, position, conv, length):
        heads = (*x.shape[:2], spec.heads, spec.head_dim)
        return Projected(*(np.reshape(x * scale, heads) for scale in params["scales"]), None)

    def output(self, spec, params, x, heads):
        return x + np.reshape(heads, x.shape)


@dataclass(frozen=True)
class Decaying:
    """η_ij = rate^i · tanh(2 + mean(x_j))."""

    def inner_shapes(self, spec):
        return {"rate": (1,)}

    def layer_shapes(self, spec):
        return {}

    def scale(self, spec, params):
        return 0.1 * np.exp(-np.abs(params["rate"]) * np.arange(spec.mini_batch_size))

    def gate(self, spec, params, x):
        return np.tanh(2 + np.mean(x, axis=-1, keepdims=True)) + np.zeros(spec.heads)


OWN = {
    "inner": Stack((Hidden(2, "silu"), Hidden(1, "swiglu"), Hidden(3, "gelu"))),
    "loss": PseudoHuber(),
    "views": Slices(),
    "update": Decaying(),
}


def problem_of(spec):
    """Lively parameters and three mini-batches, the last of them ragged."""
    rng = np.random.default_rng(7)
    params = {name: x + 0.4 * rng.normal(size=x.shape) for name, x in init(spec, 0, np.float64).items()}
    return Problem(spec, params, (rng.normal(size=(2, 2 * spec.mini_batch_size + 1, spec.width)),))


@pytest.mark.parametrize("axes", [*((axis,) for axis in OWN), tuple(OWN)], ids="+".join)
def test_an_object_of_ones_own_works_in_every_form(axes):
    spec = LayerSpec(8, 2, mini_batch_size=4, **{axis: OWN[axis] for axis in axes})
    problem, truth, allowed = expect(problem_of(spec))
    for form in FORMS:
        Trial(get_backend("numpy"), form).compare(form, answer(get_backend("numpy"), problem, Options(form)), truth, allowed)
    usual = {"inner": "linear", "loss": "squared_error", "views": "projections", "update": "mini_batch"}
    for axis in axes:
        other = dataclasses.replace(spec, **{axis: usual[axis]})
        params = problem_of(other).params | {name: x for name, x in problem.params.items() if other.param_shapes().get(name) == x.shape}
        y = answer(get_backend("numpy"), Problem(other, params, problem.inputs), Options()).y
        assert np.max(np.abs(y - truth.y)) > 1e3 * allowed.y, f"{axis} makes no difference"


@pytest.mark.parametrize("axis", ["loss", "views", "update"])
def test_an_object_without_a_name_is_not_written_as_json(axis):
    with pytest.raises(InvalidInput, match=rf"{axis} in JSON: got .*; expected a name .*Fix: "):
        LayerSpec(8, 2, **{axis: OWN[axis]}).to_json()
