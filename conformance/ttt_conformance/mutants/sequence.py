"""Wrong sequences: masks, packed rows, positions, and what leaks between rows, heads and times."""

from __future__ import annotations

from .mutant import Mutant

INNER_LOOP, LAYER = "tttcore.inner_loop:inner_loop", "tttcore.layer:layer_around"
MASK, PACKED, SCATTER = ("tttcore.sequence.rows:Rows." + name for name in ("of_mask", "of_packed", "scatter"))
DECODE = "tttcore.forms.decode:token"
PADDING, PACKING = "docs/decisions.md#12-padding-is-a-mask", "docs/decisions.md#16-packed-sequences-have-a-state-each"
POSITIONS, MASKS = "docs/decisions.md#13-default-positions-follow-the-state", "docs/mathematics.md#102-masks"
GRID = "docs/mathematics.md#101-the-grid"
APART, CAUSAL = "docs/mathematics.md#shapes", "docs/decisions.md#5-causality-is-inclusive"

_ROUTED = 'elif mask is not None and form != "decode":'
_ANSWER = "y = y if rows is None else rows.scatter(y)"

MUTANTS = {
    "mask_read_as_zeros": Mutant(MASK, "xp.sum(ones,", "xp.sum(0 * ones + 1,", "mask", "masked tokens are tokens of zeros instead of none", PADDING),
    "mask_ignored": Mutant(INNER_LOOP, _ROUTED, "elif False:", "mask", "the mask is ignored", PADDING),
    "mask_of_row_0": Mutant(
        MASK, "batch, length = mask.shape", "batch, length = mask.shape; mask = xp.broadcast_to(mask[:1], mask.shape)", "mask",
        "all rows use the mask of row 0", PADDING,
    ),
    "mask_on_the_right_only": Mutant(
        MASK, "xp.astype(xp.argsort(1 - ones, axis=1), xp.int32)", "arange(length, mask)[None, :]", "mask", "padding is taken to stand on the right",
        PADDING,
    ),
    "mask_inside_not_seen": Mutant(
        MASK, "ones = xp.astype(mask, xp.int32)",
        "mask = (xp.cumulative_sum(xp.astype(mask, xp.int32), axis=1) > 0) & mask | (xp.cumulative_sum(xp.astype(mask, "
        "xp.int32), axis=1) > 0) & (xp.flip(xp.cumulative_sum(xp.flip(xp.astype(mask, xp.int32), axis=1), axis=1), axis=1) > 0); "
        "ones = xp.astype(mask, xp.int32)",
        "mask", "padding inside a row is taken for tokens", PADDING,
    ),
    "masked_row_reads_one": Mutant(
        MASK, "xp.sum(ones, axis=1, dtype=xp.int32)", "xp.where(xp.any(mask, axis=1), xp.sum(ones, axis=1, dtype=xp.int32), 1)", "mask",
        "a row that is masked everywhere reads one token", PADDING,
    ),
    "masked_output_not_zero": Mutant(
        SCATTER, "where_valid(self.valid, _take(packed,", "(_take(packed,", "mask", "outputs of masked tokens are not 0", MASKS,
    ),
    "decode_mask_counts": Mutant(
        DECODE, "xp.astype(valid, xp.int32)", "xp.ones_like(state.phase)", "mask", "in decode a masked token advances the phase", PADDING,
    ),
    "decode_mask_forgets": Mutant(
        DECODE, "choose(valid, total, state.grads[name])", "choose(valid, total, 0 * state.grads[name])", "mask", "in decode a masked token clears S",
        PADDING,
    ),
    "decode_mask_output": Mutant(
        "tttcore.inner_loop:_by_token", "where_valid(valid, xp.permute_dims(y, (1, 0, 2, 3)))", "xp.permute_dims(y, (1, 0, 2, 3))", "mask",
        "in decode outputs of masked tokens are not 0", MASKS,
    ),
    "packed_not_reset": Mutant(
        PACKED, "token[:, None] >= borders[None, 1:]", "token[:, None] > borders[None, 1:]", "packed",
        "the first token of a packed sequence belongs to the one before it", PACKING,
    ),
    "packed_state_ignored": Mutant(
        INNER_LOOP, "    if state is not None:\n", "    if state is not None and cu_seqlens is None:\n", "packed",
        "packed sequences begin afresh although a state is given", PACKING,
    ),
    "packed_state_of_row_0": Mutant(
        INNER_LOOP, "cast(x, dtype), (state.weights", "cast(x if cu_seqlens is None else x[:1] + 0 * x, dtype), (state.weights", "packed",
        "all packed sequences begin with the first one's state", PACKING,
    ),
    "packed_empty_reads_one": Mutant(
        PACKED, "return cls(source, borders[1:] - borders[:-1],",
        "return cls(source, xp.where(borders[1:] == borders[:-1], 1, borders[1:] - borders[:-1]),", "packed",
        "an empty packed sequence reads a token", PACKING,
    ),
    "packed_last_token_lost": Mutant(
        PACKED, "return cls(source, borders[1:] - borders[:-1],",
        "return cls(source, xp.where(borders[1:] - borders[:-1] > 1, borders[1:] - borders[:-1] - 1, borders[1:] - borders[:-1]),", "packed",
        "the last token of each packed sequence is left out", PACKING,
    ),
    "slots_ignore_phase": Mutant(
        "tttcore.sequence.grid:Grid.place", "-self.phase", "0 * self.phase", "reference",
        "the first token of a resumed call is put in the first slot of a mini-batch", GRID,
    ),
    "positions_from_0": Mutant(
        LAYER, "started[:, None] + counted", "0 * started[:, None] + counted", "split", "RoPE starts again at position 0 with each call", POSITIONS,
    ),
    "positions_of_row_0": Mutant(
        LAYER, "started[:, None] + counted", "started[:1, None] + 0 * started[:, None] + counted", "reference",
        "all rows are rotated from the phase of row 0", POSITIONS,
    ),
    "positions_count_padding": Mutant(
        LAYER, "positions = started[:, None] + counted",
        "positions = started[:, None] + counted if rows is None else rows.gather(started[:, None] + counted)", "mask",
        "default positions count masked tokens", POSITIONS,
    ),
    "positions_ignored": Mutant(LAYER, "if positions is not None:", "if False:", "positions", "the caller's positions are ignored", POSITIONS),
    "positions_not_packed": Mutant(
        LAYER, "positions = positions if rows is None else rows.gather(positions)", "positions = positions", "positions",
        "under a mask the caller's positions stay at their places while tokens move", POSITIONS,
    ),
    "gate_of_row_0": Mutant(
        INNER_LOOP, "    rows = None\n", "    lr = lr[:1, ...] + 0 * lr\n    rows = None\n", "reference", "all rows use the gates of row 0", APART,
    ),
    "gate_of_head_0": Mutant(
        INNER_LOOP, "    rows = None\n", "    lr = lr[..., :1] + 0 * lr\n    rows = None\n", "reference", "all heads use the gates of the first one",
        APART,
    ),
    "heads_mixed": Mutant(
        INNER_LOOP, "    rows = None\n", "    k = k + 1e-3 * namespace(k).mean(k, axis=2, keepdims=True)\n    rows = None\n", "reference",
        "a head sees tokens of the other heads", APART,
    ),
    "rows_mixed": Mutant(
        INNER_LOOP, "    rows = None\n", "    k = k + 1e-6 * namespace(k).mean(k, axis=0, keepdims=True)\n    rows = None\n", "reference",
        "a row sees tokens of the other rows", APART,
    ),
    "rows_rolled": Mutant(
        INNER_LOOP, _ANSWER, _ANSWER + "; y = y if state is None else namespace(y).roll(y, 1, axis=0)", "reference",
        "rows change places in the output", APART,
    ),
    "heads_reversed": Mutant(
        INNER_LOOP, _ANSWER, _ANSWER + "; y = namespace(y).flip(y, axis=2)", "reference", "heads change places in the output", APART,
    ),
    "last_token_leaks": Mutant(
        INNER_LOOP, _ANSWER, _ANSWER + "; y = y + 1e-13 * y[:, -1:, ...]", "causality", "every output depends a little on the last one", CAUSAL,
    ),
    "centred_over_time": Mutant(
        INNER_LOOP, "    rows = None\n", "    q = q - 1e-3 * namespace(q).mean(q, axis=1, keepdims=True)\n    rows = None\n", "causality",
        "inputs are centred over the whole sequence", CAUSAL,
    ),
    "mask_resets_phase": Mutant(
        INNER_LOOP, "cast(state.phase, start.phase.dtype)", "cast(state.phase if mask is None else 0 * state.phase, start.phase.dtype)", "mask",
        "under a mask a resumed call begins at phase 0", PADDING,
    ),
    "mask_resets_positions": Mutant(
        LAYER, "positions = started[:, None] + counted", "positions = (started if rows is None else 0 * started)[:, None] + counted", "mask",
        "under a mask RoPE starts again at position 0 with each call", POSITIONS,
    ),
    "empty_call_resets_phase": Mutant(
        INNER_LOOP, "dtype=output_dtype(given, dtype)), start",
        "dtype=output_dtype(given, dtype)), State(start.weights, start.grads, 0 * start.phase)", "reference",
        "a call without tokens sets the phase to 0", "docs/decisions.md#10-the-state-is-weights-gradient-sum-and-phase",
    ),
}  # fmt: skip
