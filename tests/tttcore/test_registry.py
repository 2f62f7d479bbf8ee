"""Backends are found without being imported, refused by name, and never replaced by another."""

import dataclasses
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tttcore import Backend, BackendUnavailable, InvalidInput, LayerSpec, Stack, Supports, Unsupported, backends, get_backend, init, inner_params
from tttcore.backend import peers
from tttcore.loss import LOSSES

FRAMEWORKS = ("torch", "jax", "jaxlib", "flax", "triton")


@pytest.mark.parametrize(
    "code",
    [
        "import tttcore",
        "import tttcore; assert 'numpy' in tttcore.backends()",
        "import ttt_conformance",
        "import tttcore; tttcore.get_backend('numpy').layer(s := tttcore.LayerSpec(4, 2), p := tttcore.init(s, 0), p['q_proj'][None])",
        "import ttt_conformance.cli",
    ],
)
def test_no_framework_is_imported(code):
    found = f"import sys; print(*(name for name in {FRAMEWORKS} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{found}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_backends_of_this_project_are_registered():
    found = backends()
    assert {"numpy", "torch", "jax"} <= set(found)
    assert found["numpy"].available
    assert {info.name for info in found.values()} == set(found)
    assert found["torch"].target == "ttt_torch:BACKEND"


def test_a_backend_is_found_by_name_and_by_place():
    assert get_backend("numpy") is get_backend("tttcore.backend.numpy_backend:BACKEND")
    assert get_backend("torch").name == "torch"


@pytest.mark.parametrize("name", ["pytorch", "", "NumPy", "tttcore.backend.numpy_backend"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(InvalidInput) as caught:
        get_backend(name)
    assert f"backend: got {name!r}; expected one of [" in str(caught.value)
    assert "'numpy'" in str(caught.value)
    assert "'package.module:OBJECT'. Fix: " in str(caught.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder on the path of Python."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]


def distribution(folder, name, entry_points, requires=(), checks=(), peers=()):
    """The metadata of an installed distribution that registers backends."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    extras = [f"Provides-Extra: {extra}" for extra in dict.fromkeys(extra for extra, _ in requires)]
    lines = [f'Requires-Dist: {requirement}; extra == "{extra}"' for extra, requirement in requires]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *extras, *lines, ""]))
    groups = {"tttcore.backends": entry_points, "tttcore.requirements": checks, "tttcore.peers": peers}
    text = "".join(f"[{group}]\n" + "".join(f"{entry} = {target}\n" for entry, target in entries) for group, entries in groups.items())
    (info / "entry_points.txt").write_text(text)


def module(folder, name, source):
    (folder / f"{name}.py").write_text(textwrap.dedent(source))


GOOD = """
    import dataclasses, tttcore
    BACKEND = dataclasses.replace(tttcore.get_backend("numpy"), name="mine")
"""


def test_a_backend_of_another_distribution(folder):
    module(folder, "good_backend", GOOD)
    distribution(folder, "good", [("mine", "good_backend:BACKEND")], [("mine", "numpy>=1"), ("other", "nosuchlib")])
    assert backends()["mine"].available
    assert "good_backend" not in sys.modules
    assert get_backend("mine").name == "mine"


def test_a_distribution_without_an_extra_of_that_name_is_available(folder):
    module(folder, "plain_backend", GOOD)
    distribution(folder, "plain", [("plainly", "plain_backend:BACKEND")])
    assert backends()["plainly"].available
    assert get_backend("plainly").name == "mine"


def test_a_missing_framework_says_what_to_install(folder):
    module(folder, "lame_backend", "import no_such_framework")
    distribution(folder, "lame-ttt", [("lame", "lame_backend:BACKEND")], [("lame", "no-such-framework[extra]>=2"), ("lame", "numpy")])
    info = backends()["lame"]
    assert not info.available
    assert info.reason == "no-such-framework not installed: pip install 'lame-ttt[lame]'"
    with pytest.raises(BackendUnavailable) as caught:
        get_backend("lame")
    expected = "got no-such-framework not installed; expected everything it needs. Fix: pip install 'lame-ttt[lame]'."
    assert str(caught.value) == f"backend 'lame' is unavailable: {expected}"
    assert isinstance(caught.value, ImportError)
    assert backends()["numpy"].available
    assert "lame_backend" not in sys.modules


def test_a_peer_is_found_by_name_and_is_no_backend_of_a_default_run(folder):
    module(folder, "peer_backend", GOOD)
    distribution(folder, "peer", [], [("absent", "no-such-framework")], peers=[("other", "peer_backend:BACKEND"), ("absent", "peer_backend:BACKEND")])
    assert not {"other", "absent"} & set(backends())
    assert not set(peers()) & set(backends())
    assert peers()["other"].available
    assert get_backend("other").name == "mine"
    assert peers()["absent"].reason == "no-such-framework not installed: pip install 'peer[absent]'"
    with pytest.raises(InvalidInput, match=r"expected one of \[.*'numpy', .*'other'"):
        get_backend("another")


def test_a_backend_comes_before_a_peer_of_its_name(folder):
    module(folder, "good_backend", GOOD)
    distribution(folder, "both", [("same", "good_backend:BACKEND")], peers=[("same", "no_such_module:BACKEND")])
    assert get_backend("same").name == "mine"


def test_a_distributions_own_check_says_what_is_missing(folder):
    module(folder, "device_backend", GOOD)
    module(folder, "device_check", "def missing(): return 'no device: plug one in'\ndef nothing(): return ''")
    checks = [("needy", "device_check:missing"), ("fine", "device_check:nothing")]
    distribution(folder, "device", [("needy", "device_backend:BACKEND"), ("fine", "device_backend:BACKEND")], checks=checks)
    assert backends()["needy"].reason == "no device: plug one in"
    with pytest.raises(BackendUnavailable, match=r"^backend 'needy' is unavailable: got no device; expected .*\. Fix: plug one in\.$"):
        get_backend("needy")
    assert get_backend("fine").name == "mine"
    assert "device_backend" in sys.modules


def test_to_find_one_backend_runs_no_check_of_another(folder):
    module(folder, "their_check", "def missing(): return 'no device: plug one in'")
    distribution(folder, "their", [("theirs", "their_backend:BACKEND")], checks=[("theirs", "their_check:missing")])
    get_backend("numpy")
    assert "their_check" not in sys.modules
    assert not backends()["theirs"].available


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module"),
        ("", "AttributeError: "),
        ("def missing(): raise OSError('gone')", "OSError: gone"),
    ],
)
def test_a_check_that_crashes_makes_its_own_backend_unavailable(folder, source, error):
    module(folder, "broken_check", source)
    distribution(folder, "broken", [("broken", "broken_backend:BACKEND")], checks=[("broken", "broken_check:missing")])
    assert f"broken_check:missing fails ({error}" in backends()["broken"].reason
    with pytest.raises(BackendUnavailable, match=r"Fix: install its distribution again\.$"):
        get_backend("broken")
    assert backends()["numpy"].available


@pytest.mark.parametrize("name", ["twice", "numpy"])
def test_a_name_registered_twice_is_refused(folder, name):
    module(folder, "one_backend", GOOD)
    distribution(folder, "one", [(name, "one_backend:BACKEND")])
    distribution(folder, "two", [(name, "two_backend:BACKEND")])
    assert not backends()[name].available
    with pytest.raises(BackendUnavailable) as caught:
        get_backend(name)
    message = str(caught.value)
    assert "registered twice, as " in message
    assert "two_backend:BACKEND" in message or "one_backend:BACKEND" in message
    assert message.count(":BACKEND") == 2
    assert "Fix: uninstall one of the two distributions." in message


def test_one_object_registered_twice_is_one_backend(folder):
    module(folder, "same_backend", GOOD)
    for name in ("one", "two"):
        distribution(folder, name, [("same", "same_backend:BACKEND")])
    assert get_backend("same").name == "mine"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('no device')", "RuntimeError: no device"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("BACKENDS = ()", "AttributeError: module 'crashing' has no attribute 'BACKEND'"),
        ("def", "SyntaxError: "),
        ("raise SystemExit('usage: crashing FILE')", "SystemExit: usage: crashing FILE"),
        (
            "import tttcore\nBACKEND = tttcore.Backend('x', lambda spec, params, q, k, v, lr: q)",
            "InvalidInput: backend 'x': got an inner function without",
        ),
    ],
)
def test_a_module_that_crashes(folder, source, error):
    module(folder, "crashing", source)
    with pytest.raises(BackendUnavailable) as caught:
        get_backend("crashing:BACKEND")
    assert f"backend 'crashing:BACKEND' is unavailable: got {error}" in str(caught.value)
    assert "; expected crashing:BACKEND to import. Fix: make `" in str(caught.value)
    assert isinstance(caught.value.__cause__, Exception | SystemExit)


def test_a_module_that_does_not_exist():
    with pytest.raises(BackendUnavailable, match=r"No module named 'no_such_module'.*Fix: "):
        get_backend("no_such_module:BACKEND")


@pytest.mark.parametrize("source", ["BACKEND = 3", "import tttcore\nBACKEND = tttcore.Backend"])
def test_an_object_that_is_no_backend(folder, source):
    module(folder, "impostor", source)
    with pytest.raises(InvalidInput, match=r"impostor:BACKEND: got \w+; expected a tttcore\.Backend\. Fix: "):
        get_backend("impostor:BACKEND")


# What a backend does not claim.

SPEC = LayerSpec(width=8, heads=2, mini_batch_size=3)


def inner_arguments(spec):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 4, spec.heads, spec.head_dim)) for _ in range(3))
    return spec, inner_params(spec, init(spec, 0, np.float64)), q, k, v, rng.random((1, 4, spec.heads))


STATE = get_backend("numpy").inner(*inner_arguments(SPEC))[1]


def never(*_, **__):
    pytest.fail("a backend was asked for what it does not claim")


UNCLAIMED = [
    ({"forms": ("primal",)}, {}, {"form": "dual"}, "form", "'dual'"),
    ({"forms": ()}, {}, {"form": "decode"}, "form", "'decode'"),
    ({"inner": ("linear",)}, {"inner": "mlp"}, {}, "inner", "'mlp'"),
    ({"inner": ("linear", "mlp")}, {"inner": Stack((*LayerSpec(8, 2, inner="mlp").inner_model.hidden,) * 2)}, {}, "inner", "Stack("),
    ({"loss": ("squared_error",)}, {"loss": "inner_product"}, {}, "loss", "'inner_product'"),
    ({"loss": ("inner_product",)}, {"loss": LOSSES["squared_error"]}, {}, "loss", "'squared_error'"),
    ({"dtypes": ("float32", "bfloat16")}, {}, {}, "dtype", "'float64'"),
    ({"mini_batch_sizes": (16, 64)}, {}, {}, "mini_batch_size", "3"),
    ({"head_dims": (64,)}, {}, {}, "head_dim", "4"),
    ({"state": False}, {}, {"state": STATE}, "state", "a state"),
    ({"mask": False}, {}, {"mask": np.ones((1, 4), bool)}, "mask", "a mask"),
    ({"cu_seqlens": False}, {}, {"cu_seqlens": np.asarray([0, 4])}, "cu_seqlens", "a cu_seqlens"),
]
"""Claims, what the spec changes, the call's options, and what the refusal names."""


@pytest.mark.parametrize(
    ("call", "claims", "change", "options", "field", "got"),
    [
        *((call, *row) for row in UNCLAIMED for call in ("inner", "inner_vjp")),
        *((call, *row) for row in UNCLAIMED for call in ("layer", "layer_vjp") if row[3] != "cu_seqlens"),
    ],
)
def test_what_is_not_claimed_is_refused_by_name(call, claims, change, options, field, got):
    limited = Backend("limited", never, Supports(**claims), layer_function=never, vjp_function=never)
    spec = dataclasses.replace(SPEC, **change)
    layer = (spec, init(spec, 0, np.float64), np.ones((1, 4, 8)))
    arguments = layer if call.startswith("layer") else inner_arguments(spec)
    bar = [np.ones_like(arguments[2])] if call.endswith("vjp") else []
    with pytest.raises(Unsupported) as caught:
        getattr(limited, call)(*arguments, *bar, **options)
    assert str(caught.value).startswith(f"backend 'limited' does not support {field}: got {got}")
    assert "; expected " in str(caught.value)
    assert "Fix: " in str(caught.value)
    assert (caught.value.backend, caught.value.field) == ("limited", field)
    assert isinstance(caught.value, NotImplementedError)


def test_what_is_claimed_is_answered():
    claims = Supports(("dual",), ("linear",), ("squared_error",), ("float64",), (3,), (4,), state=False, mask=False, cu_seqlens=False)
    limited = dataclasses.replace(get_backend("numpy"), supports=claims)
    np.testing.assert_array_equal(limited.inner(*inner_arguments(SPEC))[0], get_backend("numpy").inner(*inner_arguments(SPEC))[0])


@pytest.mark.parametrize("call", ["inner_vjp", "layer_vjp"])
def test_a_cotangent_of_a_state_that_is_not_claimed_is_refused_by_name(call):
    limited = Backend("limited", never, Supports(state=False), layer_function=never, vjp_function=never)
    arguments = inner_arguments(SPEC) if call == "inner_vjp" else (SPEC, init(SPEC, 0, np.float64), np.ones((1, 4, 8)))
    bar = STATE._replace(phase=None)
    with pytest.raises(Unsupported, match=r"^backend 'limited' does not support state: got a state_bar; expected None\. Fix: leave state_bar out "):
        getattr(limited, call)(*arguments, np.ones_like(arguments[2]), state_bar=bar)


@pytest.mark.parametrize("call", ["inner_vjp", "layer_vjp"])
def test_the_reference_has_no_vector_jacobian_product(call):
    arguments = inner_arguments(SPEC) if call == "inner_vjp" else (SPEC, init(SPEC, 0), np.ones((1, 4, 8), np.float32))
    with pytest.raises(Unsupported, match=r"backend 'numpy' does not support gradients: got .*Fix: .*layer_derivative \(complex step\)"):
        getattr(get_backend("numpy"), call)(*arguments, np.ones_like(arguments[2]))


def test_a_wrong_call_comes_before_a_claim():
    limited = Backend("limited", never, Supports(forms=()))
    with pytest.raises(InvalidInput):
        limited.layer(SPEC, init(SPEC, 0), np.ones((1, 4, 7), np.float32))
