"""What only a backend can get wrong: its own pull-back, its checkpoints, its compiled programs."""

from __future__ import annotations

from .gradients import WHAT, hidden
from .mutant import Mutant

TORCH, CHECKPOINT, NORM = "ttt_torch.backend:vjp", "ttt_torch.scan:checkpointed_scan", "tttcore.inner_model.norm:_standardise"
MASKS, EPS = "docs/mathematics.md#102-masks", "docs/decisions.md#7-epsilon"
WIDEST, JAX = "docs/decisions.md#18-compute-in-the-widest-input-dtype", "docs/decisions.md#20-64-bit-numbers-in-jax"

_IN_BACKWARD = "__import__('torch')._C._current_graph_task_id() != -1"

MUTANTS = {
    "truncated_at_groups": hidden(
        "ttt_torch.scan:grouped_scan", "ys.append(y)", "ys.append(y); carry = __import__('tttcore').tree.tree_map(lambda x: x.detach(), carry)",
        "gradients stop at the border of a group of mini-batches",
    ),
    "gradient_1_percent_long": hidden(
        TORCH, "allow_unused=True)", "allow_unused=True); found = [None if x is None else 1.01 * x for x in found]",
        "all gradients are too long by one part in a hundred",
    ),
    "gradient_in_float32": hidden(
        TORCH, "allow_unused=True)", "allow_unused=True); found = [None if x is None else x.float().to(x.dtype) for x in found]",
        "gradients are rounded to float32", WIDEST,
    ),
    "gradient_dtype": hidden(
        TORCH, "allow_unused=True)",
        "allow_unused=True); found = [None if x is None else x.double().to(x.dtype) if x.ndim > 1 else x.float() for x in found]",
        "some gradients come back in float32", WIDEST,
    ),
    "cotangents_of_outputs_only": hidden(
        TORCH, "if y.requires_grad]", "if y.requires_grad][:1]", "the cotangent of the final state is ignored when there is one",
    ),
    "state_cotangent_required": hidden(
        TORCH, "allow_unused=True)", "allow_unused=True); found = found if len(pairs) > 1 else [None if x is None else 0.5 * x for x in found]",
        "gradients are wrong when no cotangent of the state is given",
    ),
    "recomputed_with_another_eps": hidden(
        NORM, "+ eps)", f"+ (1e-8 if {_IN_BACKWARD} else eps))", "the backward pass recomputes with another ε", EPS,
    ),
    "recomputed_from_another_carry": hidden(
        CHECKPOINT, "checkpoint(stretch, loop, carry, part,",
        "checkpoint(lambda loop, carry, part: stretch("
        f"loop, __import__('tttcore').tree.tree_map(lambda x: x + 1e-3 * ({_IN_BACKWARD}), carry), part), loop, carry, part,",
        "the backward pass recomputes a group from another carry",
    ),
    "jax_gradient_1_percent_long": hidden(
        "ttt_jax.backend:vjp", "return list(pull_back(", "return list(1.01 * x for x in pull_back(",
        "all gradients are too long by one part in a hundred", WHAT, "jax",
    ),
    "jax_rest_detached": hidden(
        "ttt_jax.scan:remat_scan", "carry, rest = group(carry,", "carry, rest = group(jax.lax.stop_gradient(carry),",
        "gradients stop before the rest of a long sequence", WHAT, "jax",
    ),
    "jax_padding_is_tokens": Mutant(
        "ttt_jax.backend:_padded", "jnp.ones((batch, length), jnp.bool) if mask is None else mask", "jnp.ones((batch, length), jnp.bool) | True",
        "mask", "a mask is forgotten where the length is padded to a multiple of K", MASKS, "jax",
    ),
    "jax_x64_forgotten": Mutant(
        "ttt_jax.backend:widened", "any(x.dtype in _WIDE for x in jax.tree.leaves(trees))", "False", "reference",
        "64-bit numbers are computed in 32 bits unless the global flag is set", JAX, "jax",
    ),
    "jax_extra_padding_read": Mutant(
        "ttt_jax.backend:_padded", "return y[:, :length], end", "return y[:, extra:], end", "reference",
        "outputs are cut at the wrong end of the padding", MASKS, "jax",
    ),
}  # fmt: skip
