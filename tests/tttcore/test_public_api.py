"""The public names and signatures, pinned: to change one is to change what others rely on."""

import dataclasses
import importlib
import importlib.metadata
import inspect
import pkgutil
import types

import pytest

import ttt_conformance
import ttt_torch
import tttcore
from ttt_conformance import Failure, Report, Result, conform
from ttt_conformance.matrix import EFFORTS
from tttcore import Backend, BackendInfo, BackendUnavailable, Hidden, LayerSpec, ModelSpec, Stack, State, Supports

NAMES = {
    tttcore: {
        "SPEC_VERSION", "Backend", "BackendInfo", "BackendUnavailable", "Hidden", "InvalidAnswer", "InvalidInput", "LayerSpec", "ModelSpec",
        "Stack", "State", "Supports", "UnknownKeyword", "Unsupported", "backends", "directional_derivative", "get_backend", "init",
        "inner_derivative", "inner_loop", "inner_params", "layer_around", "layer_derivative", "upstream",
    },
    ttt_torch: {"BACKEND", "TTTLayer", "port"},
    ttt_conformance: {"LAWS", "Failure", "Law", "Report", "Result", "conform"},
    tttcore.language_model: {"JAX", "OURS", "PYTORCH", "LoadingReport", "Memory", "ModelSpec", "Naming", "from_config", "from_jax_config"},
    tttcore.upstream: {"from_jax", "from_pytorch", "to_jax", "to_pytorch"},
}  # fmt: skip

METHODS = {
    "inner": "(self, spec, inner_params, q, k, v, lr, state=None, form='dual', mask=None, cu_seqlens=None)",
    "layer": "(self, spec, params, x, state=None, form='dual', mask=None, positions=None)",
    "inner_vjp": "(self, spec, inner_params, q, k, v, lr, y_bar, state=None, state_bar=None, form='dual', mask=None, cu_seqlens=None)",
    "layer_vjp": "(self, spec, params, x, y_bar, state=None, state_bar=None, form='dual', mask=None, positions=None)",
    "asarray": "(self, array)",
}

FUNCTIONS = {
    "backends": "()",
    "get_backend": "(name)",
    "init": "(spec, seed, dtype=<class 'numpy.float32'>)",
    "inner_params": "(spec, params)",
    "directional_derivative": "(function, at, along)",
    "layer_derivative": "(spec, params, x, params_dot, x_dot, *, state=None, state_dot=None, form='dual', mask=None, positions=None)",
    "inner_derivative": "(spec, primals, tangents, *, state=None, state_dot=None, form='dual', mask=None, cu_seqlens=None)",
    "layer_around": "(inner, spec, params, x, *, state=None, form='dual', mask=None, positions=None)",
}

FIELDS = {
    LayerSpec: {
        "width": None, "heads": None, "inner": "linear", "loss": "squared_error", "mini_batch_size": 16, "base_lr": None, "share_qk": False,
        "conv_width": 4, "gate": False, "rope_theta": 10000.0, "eps": 1e-6, "views": "projections", "update": "mini_batch",
        "read_out": "causal",
    },
    Supports: {
        "forms": ("primal", "dual", "decode"), "inner": None, "loss": None, "dtypes": None, "mini_batch_sizes": None, "head_dims": None,
        "state": True, "mask": True, "cu_seqlens": True, "read_out": ("causal",),
    },
    ModelSpec: {
        "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 32, "hidden_act": "silu",
        "initializer_range": 0.02, "rms_norm_eps": 1e-6, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True,
        "rope_theta": 10000.0, "use_gate": False, "share_qk": False, "ttt_layer_type": "linear", "ttt_base_lr": 1.0, "mini_batch_size": 16,
        "pre_conv": False, "conv_kernel": 4,
    },
    Hidden: {"expansion": 4, "activation": "gelu"},
    Stack: {"hidden": (), "bias": True, "residual_norm": True},
}  # fmt: skip


def public(module):
    """The names of a package, without its submodules."""
    if hasattr(module, "__all__"):
        return {name for name in module.__all__ if getattr(module, name) is not None}
    submodules = {name for _, name, _ in pkgutil.iter_modules(module.__path__)} - NAMES[module]
    return {name for name in vars(module) if not name.startswith("_")} - submodules


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__)
def test_public_names(module):
    assert public(module) == NAMES[module]


def test_a_function_hides_no_submodule():
    """``tttcore.inner_loop`` is the function; its module has the same name."""
    assert inspect.isfunction(tttcore.inner_loop)
    assert inspect.ismodule(tttcore.upstream)


def untyped(function):
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_a_backend(name):
    assert untyped(getattr(Backend, name)) == METHODS[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    assert untyped(getattr(tttcore, name)) == FUNCTIONS[name]


def test_the_torch_module():
    expected = "(model, layers='all', *, inner='linear', init='attention', causal=None, kernel='torch', dry_run=False, **options)"
    assert untyped(ttt_torch.port) == expected
    assert untyped(ttt_torch.TTTLayer.__init__) == "(self, spec, *, form='dual', kernel='torch', device=None, dtype=None)"
    assert untyped(ttt_torch.TTTLayer.forward) == "(self, x, state=None, mask=None, positions=None, form=None)"


@pytest.mark.parametrize("value", FIELDS, ids=lambda value: value.__name__)
def test_fields_and_their_defaults(value):
    defaults = {field.name: None if field.default is dataclasses.MISSING else field.default for field in dataclasses.fields(value)}
    assert defaults == FIELDS[value]
    assert list(defaults) == list(FIELDS[value]), "positions are public, too"


def test_fields_of_values():
    assert State._fields == ("weights", "grads", "phase", "conv")
    assert State._field_defaults == {"conv": None}
    expected = ["name", "inner_function", "supports", "array_type", "from_numpy", "to_numpy", "concrete", "vjp_function", "layer_function"]
    expected += ["decoder_function"]
    assert [field.name for field in dataclasses.fields(Backend) if field.init] == expected
    assert [field.name for field in dataclasses.fields(BackendInfo)] == ["name", "target", "reason"]


REPORTED = {
    Report: ["results", "seconds", "effort", "environment", "spec_version"],
    Result: [
        "backend", "law", "form", "subject", "inner", "dtype", "status", "worst", "comparisons", "examples", "seconds", "message", "shares", "curve",
        "failure",
    ],
    Failure: ["what", "index", "got", "expected", "error", "allowed", "case", "spec", "cause", "reproducer"],
}  # fmt: skip


@pytest.mark.parametrize("value", REPORTED, ids=lambda value: value.__name__)
def test_fields_of_reports(value):
    assert [field.name for field in dataclasses.fields(value)] == REPORTED[value]


def test_the_suite():
    assert untyped(conform) == "(backends, effort='default', *, progress=None)"
    assert list(EFFORTS) == ["quick", "default", "deep"]


def test_versions():
    assert tttcore.SPEC_VERSION == "1.0"
    assert importlib.metadata.version("tttcore") == tttcore.__version__


def documented(module):
    """Public functions, classes and methods that a module defines, by name."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield f"{module.__name__}.{name}", value
        if inspect.isclass(value):
            for method, found in vars(value).items():
                function = getattr(found, "fget", getattr(found, "__func__", found))
                if isinstance(function, types.FunctionType) and not function.__name__.startswith("_") and not method.startswith("_"):
                    yield f"{module.__name__}.{name}.{method}", function


def modules(package):
    yield package
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name.endswith(".__main__"):
            continue  # to import it is to run it
        try:
            yield importlib.import_module(info.name)
        except (BackendUnavailable, importlib.metadata.PackageNotFoundError):
            continue  # a module for a device or of a library that is not here


@pytest.mark.parametrize("package", [tttcore, ttt_torch, ttt_conformance], ids=lambda package: package.__name__)
def test_everything_public_is_documented(package):
    found = [(name, value) for module in modules(package) for name, value in documented(module)]
    assert len(found) > 5
    assert [name for name, value in found if not (value.__doc__ or "").strip()] == []
    assert [module.__name__ for module in modules(package) if not (module.__doc__ or "").strip()] == []
    # A dataclass without a docstring gets its signature as one.
    classes = [(name, value) for name, value in found if inspect.isclass(value)]
    assert [name for name, value in classes if (value.__doc__ or "").startswith(f"{value.__name__}(")] == []
