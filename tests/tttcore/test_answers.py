"""Adapters of another library's function: fewer keywords, no state, and answers that are none."""

import dataclasses
import inspect

import numpy as np
import pytest

from tttcore import Backend, InvalidAnswer, InvalidInput, LayerSpec, Stack, State, Supports, get_backend, init, inner_params
from tttcore.backend.answers import OPTIONAL

NUMPY = get_backend("numpy")
SPEC = LayerSpec(width=8, heads=2, mini_batch_size=3)
BARE = LayerSpec(width=8, heads=2, mini_batch_size=3, inner=Stack(bias=False, residual_norm=False))
PLAIN = Supports(forms=("dual",), state=False, mask=False, cu_seqlens=False)
RIGHT = NUMPY.inner_function


def arguments(spec=SPEC, rows=2):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(rows, 4, spec.heads, spec.head_dim)) for _ in range(3))
    return spec, inner_params(spec, init(spec, 0, np.float64)), q, k, v, rng.random((rows, 4, spec.heads))


def layer_arguments(spec=SPEC):
    return spec, init(spec, 0, np.float64), np.random.default_rng(1).normal(size=(2, 4, 8))


def y_alone(spec, params, q, k, v, lr):
    return RIGHT(spec, params, q, k, v, lr, state=None, form="dual", mask=None, cu_seqlens=None)[0]


def returning(change, supports=None):
    """A backend that computes what is right and returns what ``change`` makes of it."""

    def inner(*positional, **options):
        return change(*RIGHT(*positional, **options))

    return Backend("mine", inner, supports or Supports())


# Functions with fewer keywords.


def test_a_function_of_the_tokens_alone_is_a_backend():
    mine = Backend("mine", y_alone, PLAIN)
    y, state = mine.inner(*arguments())
    expected = NUMPY.inner(*arguments())[0]
    np.testing.assert_array_equal(y, expected)
    assert state is None


def test_the_layer_around_it_has_no_state_either():
    mine = Backend("mine", y_alone, PLAIN)
    y, state = mine.layer(*layer_arguments())
    np.testing.assert_array_equal(y, NUMPY.layer(*layer_arguments())[0])
    assert state is None


def test_a_function_without_state_may_return_one_all_the_same():
    mine = Backend("mine", lambda *given: RIGHT(*given, state=None, form="dual", mask=None, cu_seqlens=None), PLAIN)
    state = mine.inner(*arguments())[1]
    np.testing.assert_array_equal(state.weights["W1"], NUMPY.inner(*arguments())[1].weights["W1"])


def test_none_beside_y_is_no_state():
    assert Backend("mine", lambda *given: (y_alone(*given), None), PLAIN).inner(*arguments())[1] is None


CLAIMED = {
    "state": ({"state": True}, r"add the keyword or claim Supports\(state=False\)"),
    "form": ({"forms": ("dual", "primal")}, r"claim one form: Supports\(forms=\('dual',\)\)"),
    "mask": ({"mask": True}, r"add the keyword or claim Supports\(mask=False\)"),
    "cu_seqlens": ({"cu_seqlens": True}, r"add the keyword or claim Supports\(cu_seqlens=False\)"),
}


@pytest.mark.parametrize("keyword", CLAIMED)
def test_a_claimed_keyword_that_is_missing_is_refused(keyword):
    claims, fix = CLAIMED[keyword]
    message = rf"^backend 'mine': got an inner function without '{keyword}'; expected what it claims\. Fix: {fix}\.$"
    with pytest.raises(InvalidInput, match=message):
        Backend("mine", y_alone, dataclasses.replace(PLAIN, **claims))
    with pytest.raises(InvalidInput, match=message):
        dataclasses.replace(Backend("mine", y_alone, PLAIN), supports=dataclasses.replace(PLAIN, **claims))


@pytest.mark.parametrize("kept", OPTIONAL)
def test_a_function_gets_the_keywords_that_it_has_and_no_other(kept):
    asked = []
    names = ("spec", "params", "q", "k", "v", "lr")

    def inner(*given, **options):
        asked.append(options)
        return y_alone(*given)

    positional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    inner.__signature__ = inspect.Signature([*positional, inspect.Parameter(kept, inspect.Parameter.KEYWORD_ONLY)])
    Backend("mine", inner, PLAIN).inner(*arguments())
    assert asked == [{kept: "dual" if kept == "form" else None}]


def test_a_function_of_any_keywords_gets_all():
    asked = []

    def inner(*given, **options):
        asked.append(options)
        return y_alone(*given)

    Backend("mine", inner, PLAIN).inner(*arguments())
    assert [tuple(options) for options in asked] == [OPTIONAL]


def test_a_function_whose_signature_nobody_knows_gets_all():
    class Native:
        @property
        def __signature__(self):
            raise ValueError("no signature found for builtin")

        def __call__(self, *given, **options):
            assert tuple(options) == OPTIONAL
            return y_alone(*given)

    native = Native()
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(native)
    np.testing.assert_array_equal(Backend("mine", native, PLAIN).inner(*arguments())[0], NUMPY.inner(*arguments())[0])


@pytest.mark.parametrize("function", [None, 3, "inner"])
def test_what_is_no_function_is_refused(function):
    kind = type(function).__name__
    with pytest.raises(InvalidInput, match=rf"^backend 'mine': got {kind}; expected a function as its inner_function\. Fix: pass the inner loop\.$"):
        Backend("mine", function)


# Answers that are none.


WRONG_Y = {
    "heads before tokens": (lambda y, state: (np.swapaxes(y, 1, 2), state), r"shape \(2, 2, 4, 4\)"),
    "flat heads": (lambda y, state: (y.reshape(2, 4, 8), state), r"shape \(2, 4, 8\)"),
    "no array": (lambda y, state: (y.tolist(), state), "list"),
    "nothing": (lambda y, state: None, "NoneType"),
    "three values": (lambda y, state: (y, state, {}), "tuple"),
}


@pytest.mark.parametrize("kind", WRONG_Y)
def test_a_wrong_y_is_told(kind):
    change, got = WRONG_Y[kind]
    message = (
        rf"^backend 'mine' returned a wrong y: got {got}; expected shape \(2, 4, 2, 4\), as the input\. Fix: return y in the layout of the input\.$"
    )
    with pytest.raises(InvalidAnswer, match=message) as caught:
        returning(change).inner(*arguments())
    assert caught.value.backend == "mine"
    assert isinstance(caught.value, RuntimeError)


def test_a_wrong_y_of_a_layer_function_is_told():
    mine = dataclasses.replace(NUMPY, name="mine", layer_function=lambda inner, spec, params, x, **options: (x[:, 1:], None))
    with pytest.raises(InvalidAnswer, match=r"^backend 'mine' returned a wrong y: got shape \(2, 3, 8\); expected shape \(2, 4, 8\), as the input\."):
        mine.layer(*layer_arguments())


FIX = r"Fix: return \(y, state\), or claim Supports\(state=False\) and return y\.$"
NO_STATE = {
    "y alone": (lambda y, state: y, "NoneType"),
    "none": (lambda y, state: (y, None), "NoneType"),
    "a tuple": (lambda y, state: (y, tuple(state)), "tuple"),
    "a dict": (lambda y, state: (y, state._asdict()), "dict"),
}


@pytest.mark.parametrize("kind", NO_STATE)
def test_a_state_that_is_none_is_told(kind):
    change, got = NO_STATE[kind]
    with pytest.raises(InvalidAnswer, match=rf"^backend 'mine' returned a wrong state: got {got}; expected a tttcore\.State\. {FIX}"):
        returning(change).inner(*arguments())


def test_what_is_no_state_is_told_to_a_backend_that_claims_none():
    with pytest.raises(InvalidAnswer, match=r"^backend 'mine' returned a wrong state: got dict; "):
        returning(lambda y, state: (y, {}), PLAIN).inner(*arguments())


WRONG_STATE = {
    "one row": lambda state: state._replace(weights={name: x[:1] for name, x in state.weights.items()}),
    "no bias": lambda state: state._replace(grads={"W1": state.grads["W1"]}),
    "other names": lambda state: state._replace(weights={"W": state.weights["W1"], "b": state.weights["b1"]}),
    "one phase": lambda state: state._replace(phase=state.phase[:1]),
    "a number as phase": lambda state: state._replace(phase=3),
    "no phase": lambda state: state._replace(phase=None),
    "a convolution's": lambda state: state._replace(conv=np.zeros((2, 3, 8))),
    "empty": lambda state: State({}, {}, state.phase),
}


@pytest.mark.parametrize("kind", WRONG_STATE)
@pytest.mark.parametrize("call", ["inner", "layer"])
def test_a_state_of_other_names_or_shapes_is_told(kind, call):
    mine = returning(lambda y, state: (y, WRONG_STATE[kind](state)))
    with pytest.raises(InvalidAnswer) as caught:
        getattr(mine, call)(*(arguments() if call == "inner" else layer_arguments()))
    message = str(caught.value)
    shapes = ", ".join(f"'{part}.{name}': {shape}" for part in ("weights", "grads") for name, shape in (("W1", (2, 2, 4, 4)), ("b1", (2, 2, 1, 4))))
    assert message.startswith("backend 'mine' returned a wrong state: got shapes {")
    expected = f"; expected {{{shapes}, 'phase': (2,)}}. Fix: return arrays of these names and shapes, conv None."
    assert message.endswith(expected)


def test_a_stack_without_bias_has_a_state_without():
    y, state = returning(lambda y, state: (y, state)).inner(*arguments(BARE))
    assert list(state.weights) == list(state.grads) == ["W1"]
    np.testing.assert_array_equal(y, NUMPY.inner(*arguments(BARE))[0])
    biased = returning(lambda y, state: (y, state._replace(weights=state.weights | {"b1": np.zeros((2, 2, 1, 4))})))
    with pytest.raises(InvalidAnswer, match=r"expected \{'weights\.W1': \(2, 2, 4, 4\), 'grads\.W1': \(2, 2, 4, 4\), 'phase': \(2,\)\}"):
        biased.inner(*arguments(BARE))


def test_packed_sequences_have_a_state_each():
    given = arguments(rows=1)
    mine = returning(lambda y, state: (y, state))
    assert mine.inner(*given, cu_seqlens=np.asarray([0, 1, 1, 4]))[1].phase.shape == (3,)
    one = returning(lambda y, state: (y, State(*({name: x[:1] for name, x in part.items()} for part in state[:2]), state.phase[:1])))
    with pytest.raises(InvalidAnswer, match=r"'phase': \(1,\)\}; expected \{.*'phase': \(3,\)\}"):
        one.inner(*given, cu_seqlens=np.asarray([0, 1, 1, 4]))


def test_a_right_answer_is_handed_on_as_it_is():
    kept = []
    y, state = returning(lambda y, state: kept.append((y, state)) or (y, state)).inner(*arguments())
    assert y is kept[0][0]
    assert state is kept[0][1]
