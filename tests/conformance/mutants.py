"""Wrong layers: each is the reference, or a backend, with one small change in its source while it answers.

``mutants:NAME`` is a backend, so that ``ttt conform --backend mutants:NAME`` must be red.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

from tttcore import Backend, get_backend


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in the source of ``target`` ("module:function" or "module:Class.method")."""

    target: str
    old: str
    new: str

    @functools.cached_property
    def function(self) -> Any:
        module, _, path = self.target.partition(":")
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = inspect.getattr_static(found, part)
        return getattr(found, "__func__", found)

    @functools.cached_property
    def code(self) -> CodeType:
        """The changed function's code."""
        source = textwrap.dedent(inspect.getsource(self.function)).replace("@classmethod\n", "")
        assert self.old in source, f"{self.target} no longer contains {self.old!r}"
        scope: dict[str, Any] = {}
        exec(compile("from __future__ import annotations\n" + source.replace(self.old, self.new), self.target, "exec"), {}, scope)
        code = scope[self.function.__name__].__code__
        assert code.co_freevars == self.function.__code__.co_freevars == (), f"{self.target} closes over something"
        return code

    @contextlib.contextmanager
    def applied(self, base: str) -> Iterator[None]:
        original = self.function.__code__
        _forget(base)
        self.function.__code__ = self.code
        try:
            yield
        finally:
            self.function.__code__ = original
            _forget(base)

    def backend(self, name: str, base: str = "numpy") -> Backend:
        """The backend ``base`` with this change in it while it answers."""
        right = get_backend(base)

        def changed(function: Any) -> Any:
            def answer(*args: Any, **options: Any) -> Any:
                with self.applied(base):
                    return function(*args, **options)

            return answer

        vjp = right.vjp_function
        return replace(
            right,
            name=name,
            inner_function=changed(right.inner_function),
            layer_function=changed(right.layer_function),
            vjp_function=None if vjp is None else changed(vjp),
        )


def _forget(base: str) -> None:
    """Compiled functions do not see a change of source."""
    if base == "jax":
        sys.modules["jax"].clear_caches()


DUAL, PRIMAL, DECODE = "tttcore.forms.dual:mini_batch", "tttcore.forms.primal:mini_batch", "tttcore.forms.decode:token"
LOOP, NORM, MLP = "tttcore.inner_loop:_by_mini_batch", "tttcore.inner_model.norm:layer_norm_vjp", "tttcore.inner_model.stack:Stack.backward"

# W₂ in the transpose's shape, its entries where they were.
_SHAPE_ONLY = "xp.reshape(layers[index + 1][0], layers[index + 1][0].shape[:-2] + layers[index + 1][0].shape[:-3:-1])"

MUTANTS = {
    "strict_causality": Mutant(DUAL, "* lr[..., None, :])", "* lr[..., None, :], k=-1)"),
    "eta_transposed": Mutant(DUAL, "lr[..., None, :]", "lr[..., :, None]"),
    "eta_by_query_row": Mutant(DUAL, "lr[..., None, :])", "lr[..., :1, None])"),
    "bias_not_updated": Mutant(DUAL, "xp.matrix_transpose(x) + ones)", "xp.matrix_transpose(x) + 0)"),
    "mid_state_not_read": Mutant(DUAL, "(x_bar @ weight_sum + bias_sum + attention @ g)", "(attention @ g)"),
    "last_scale_everywhere": Mutant(DUAL, "scale[:, None] * (x_bar", "scale[-1] * (x_bar"),
    "phase_reset_on_split": Mutant(LOOP, "grid.end_phase)", "0 * grid.end_phase)"),
    "sum_dropped_on_split": Mutant(LOOP, "State(weights, grads,", "State(weights, {n: 0 * g for n, g in grads.items()},"),
    "ragged_tail_steps": Mutant(LOOP, "choose(done, weight - scale[-1] * total[name], weight)", "weight - scale[-1] * total[name]"),
    "no_1_over_d": Mutant("tttcore.update:MiniBatch.scale", "(spec.base_lr / spec.head_dim)", "spec.base_lr"),
    "a_i_forgotten": Mutant("tttcore.update:MiniBatch.scale", "relu(average + offset)", "(0 * relu(average + offset) + 1)"),
    "a_i_not_clipped": Mutant("tttcore.update:MiniBatch.scale", "relu(average + offset)", "(average + offset)"),
    "eps_in_backward": Mutant(NORM, "_standardise(z, eps)", "_standardise(z, 1e-8)"),
    "eps_everywhere": Mutant("tttcore.inner_model.norm:_standardise", "+ eps)", "+ 1e-8)"),
    "sample_variance": Mutant("tttcore.inner_model.norm:_standardise", "/ width + eps", "/ max(width - 1, 1) + eps"),
    "norm_gradient_parentheses": Mutant(NORM, "- standard * along)", "- standard) * along"),
    "transposed_w2": Mutant(MLP, "xp.matrix_transpose(layers[index + 1][0])", _SHAPE_ONLY),
    "residual_on_z": Mutant("tttcore.inner_model.stack:Stack.output", "return x + layer_norm(", "return z + layer_norm("),
    "gelu_derivative_truncated": Mutant("tttcore.inner_model.activations:GeluTanh.vjp", "3 * 0.044715", "3 * 0.0447"),
    "loss_target_v": Mutant("tttcore.loss:SquaredError.gradient", "prediction - label", "prediction - 0.5 * label"),
    "rope_not_modulo": Mutant("tttcore.views.rope:rotate", "position % period", "position"),
    "rope_halves": Mutant("tttcore.views.rope:rotate", "wide[..., 0::2], wide[..., 1::2]", "wide[..., :half], wide[..., half:]"),
    "key_conv_uses_query_weights": Mutant("tttcore.views.projections:Projections._convolve", 'f"conv_{view}_weight"', '"conv_q_weight"'),
    "conv_state_lost": Mutant("tttcore.views.projections:Projections._convolve", "if conv is None else conv", "if True else conv"),
    "decode_strict": Mutant(DECODE, "step * summed[name]", "step * state.grads[name]"),
    "decode_a_of_next": Mutant(DECODE, "xp.take(scale, state.phase", "xp.take(scale, (state.phase + 1) % spec.mini_batch_size"),
    "primal_strict": Mutant(PRIMAL, "xp.cumulative_sum(gradient, axis=2)", "(xp.cumulative_sum(gradient, axis=2) - gradient)"),
    "mask_read_as_zeros": Mutant("tttcore.sequence.rows:Rows.of_mask", "xp.sum(ones,", "xp.sum(0 * ones + 1,"),
    "packed_not_reset": Mutant("tttcore.sequence.rows:Rows.of_packed", "token[:, None] >= borders[None, 1:]", "token[:, None] > borders[None, 1:]"),
}  # fmt: skip

BASES = ("numpy", "torch", "jax")


def __getattr__(name: str) -> Backend:
    """``mutants:eta_transposed`` or, over another backend, ``mutants:torch_eta_transposed``."""
    base, _, rest = name.partition("_")
    if base in BASES and rest in MUTANTS:
        return MUTANTS[rest].backend(name, base)
    if name in MUTANTS:
        return MUTANTS[name].backend(name)
    raise AttributeError(name)
