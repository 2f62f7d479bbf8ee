"""The language model: a head on the model, its loss, and checkpoints in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from tttcore import ModelSpec
from tttcore.arrays import cast, compute_dtype
from tttcore.language_model import JAX, OURS, PYTORCH, LoadingReport, Naming, from_config, from_jax_config
from tttcore.language_model.loading import dtype_of, read, without_prefix

from ..backend import from_numpy, widened
from .folder import read_folder, write_folder
from .generation import generate
from .modeling import Cache, TTTModel
from .modules import Linear

IGNORED = -100
"""A label that counts nothing, as in PyTorch."""


class CausalLMOutput(NamedTuple):
    """Logits ``[B, T, V]``, the cache after the tokens, with labels the loss, and hidden states as in ``ModelOutput``."""

    logits: jax.Array
    cache: Cache
    loss: jax.Array | None
    hidden_states: tuple[jax.Array, ...] | None


class TTTForCausalLM(nnx.Module):
    """``TTTModel`` and a linear head onto the vocabulary, which is the embedding if ``tie_word_embeddings``.

    Law: the dotted paths of its parameters and their shapes are ``spec.param_shapes()``.
    """

    def __init__(self, spec: ModelSpec, *, remat: bool = False, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs) -> None:
        self.spec = spec
        self.model = TTTModel(spec, remat=remat, param_dtype=param_dtype, rngs=rngs)
        width, std = spec.hidden_size, spec.initializer_range
        self.lm_head = None if spec.tie_word_embeddings else Linear(width, spec.vocab_size, std, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self,
        input_ids: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        cache: Cache | None = None,
        inputs_embeds: jax.Array | None = None,
        labels: jax.Array | None = None,
        output_hidden_states: bool = False,
        logits_to_keep: int = 0,
    ) -> CausalLMOutput:
        """Logits, of the last ``logits_to_keep`` tokens only (0: of all), and with labels the loss; all else as in ``TTTModel``.

        labels ``[B, T]`` are the tokens themselves (they are shifted here), −100 where none counts; the loss is the mean of −log p.
        """
        out = self.model(input_ids, attention_mask, cache, inputs_embeds, output_hidden_states)
        head = (self.model.embed_tokens if self.lm_head is None else self.lm_head).weight[...]
        with widened(head, out.last_hidden_state):
            logits = out.last_hidden_state[:, -logits_to_keep:] @ head.T
            loss = None if labels is None else cross_entropy(logits[:, :-1], jnp.asarray(labels)[:, 1:])
        return CausalLMOutput(logits, out.cache, loss, out.hidden_states)

    generate = generate

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: DTypeLike | None = None, remat: bool = False) -> TTTForCausalLM:
        """The model of a folder that ``save_pretrained`` of this class or of ``ttt_torch.models`` wrote, bit for bit unless ``dtype`` is given.

        Raises ``InvalidInput`` for a file that is not there or cannot be read, and, with all names, for a tensor that is unused, missing or of
        another shape.
        """
        spec, tensors = read_folder(Path(folder))
        arrays, _ = read(tensors, spec, OURS, f"tensors of {folder}")
        return cls.of_arrays(spec, arrays, dtype=dtype, remat=remat)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, which both packages' ``from_pretrained`` reads; together or not at all."""
        write_folder(Path(folder), self.spec, {name: np.asarray(x) for name, x in self.arrays().items()})

    @classmethod
    def from_ttt_lm_pytorch(
        cls, state_dict: Mapping[str, Any], config: Any, *, dtype: DTypeLike | None = None, output_loading_info: bool = False
    ) -> TTTForCausalLM | tuple[TTTForCausalLM, LoadingReport]:
        """The model of a state dict of the authors' ``TTTForCausalLM`` (ttt-lm-pytorch), of arrays of any library; with its report if asked for.

        ``config`` is theirs, as an object or a dict, or a ``ModelSpec``; ``dtype`` that of the embedding unless given. Raises ``InvalidInput``, which
        lists all names, when a tensor is unused, missing, of another shape, or differs from the one it is tied to: a model is whole or not made.
        """
        return cls._of_authors(state_dict, from_config(config), PYTORCH, "state_dict", dtype, output_loading_info)

    @classmethod
    def from_ttt_lm_jax(
        cls, params: Mapping[Any, Any], config: Any, *, dtype: DTypeLike | None = None, output_loading_info: bool = False
    ) -> TTTForCausalLM | tuple[TTTForCausalLM, LoadingReport]:
        """The model of the parameters of the authors' ``CausalLM`` (ttt-lm-jax); all else as ``from_ttt_lm_pytorch``.

        ``params``: nested dicts, or flat ones whose keys are paths joined by "/" or tuples, with "params" in front or without.
        """
        return cls._of_authors(without_prefix(params), from_jax_config(config), JAX, "params", dtype, output_loading_info)

    @classmethod
    def of_arrays(cls, spec: ModelSpec, arrays: Mapping[str, np.ndarray], *, dtype: DTypeLike | None = None, remat: bool = False) -> TTTForCausalLM:
        """The model of arrays under the names of ``spec.param_shapes()``, in their dtypes unless ``dtype`` is given; all must be there."""
        graph, state = nnx.split(nnx.eval_shape(lambda: cls(spec, remat=remat, rngs=nnx.Rngs(0))))
        given = {name: from_numpy(x if dtype is None else x.astype(dtype), None) for name, x in arrays.items()}
        flat_state = [(path, variable.replace(given[dotted(path)])) for path, variable in nnx.to_flat_state(state)]
        return nnx.merge(graph, nnx.from_flat_state(flat_state))

    def arrays(self) -> dict[str, jax.Array]:
        """All parameters by the names and in the order of ``spec.param_shapes()``."""
        found = {dotted(path): variable[...] for path, variable in nnx.to_flat_state(nnx.state(self, nnx.Param))}
        return {name: found[name] for name in self.spec.param_shapes()}

    @classmethod
    def _of_authors(
        cls, given: Mapping[str, Any], spec: ModelSpec, naming: Naming, what: str, dtype: DTypeLike | None, output_loading_info: bool
    ) -> TTTForCausalLM | tuple[TTTForCausalLM, LoadingReport]:
        arrays, report = read(given, spec, naming, what)
        model = cls.of_arrays(spec, arrays, dtype=jnp.dtype(dtype_of(given, naming)) if dtype is None else dtype)
        return (model, report) if output_loading_info else model


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean of −log softmax(logits)[label] where a label counts; logits ``[B, T, V]``, labels ``[B, T]``; in float32 at the least."""
    counts = labels != IGNORED
    log_p = jax.nn.log_softmax(cast(logits, compute_dtype(logits)))
    chosen = jnp.take_along_axis(log_p, jnp.where(counts, labels, 0)[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(counts, chosen, 0)) / jnp.sum(counts)


def dotted(path: tuple[Any, ...]) -> str:
    """A path of a state as PyTorch writes it."""
    return ".".join(map(str, path))
