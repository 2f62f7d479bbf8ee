"""Wrong blocks of mini-batches, over the backend that computes in them."""

from __future__ import annotations

from .gradients import hidden
from .mutant import Mutant

PAIRS, TRAIN, FACTORS, LOOP = *(f"tttcore.forms.block:{name}" for name in ("pairs", "train", "reading_factors")), "tttcore.inner_loop:_by_block"
DUAL, TAIL, GRID = "docs/mathematics.md#7-block-dual", "docs/decisions.md#11-a-ragged-tail-is-not-an-update", "docs/mathematics.md#101-the-grid"
CAUSAL = "docs/decisions.md#5-causality-is-inclusive"

MUTANTS = {
    "block_rows_at_its_start": Mutant(
        TRAIN, "] @ new[0][1]", "] @ (0 * new[0][1])", "reference",
        "training rows of a block do not see the mini-batches before theirs", DUAL, "torch",
    ),
    "block_upper_rows_at_its_start": Mutant(
        TRAIN, "_gradients(spec, params, after,", "_gradients(spec, params, weights,", "reference",
        "above the first map rows of a block are taken at the weights at its start", DUAL, "torch",
    ),
    "block_bias_at_its_start": Mutant(PAIRS, "+ ones", "", "reference", "the first map's bias does not move within a block", DUAL, "torch"),
    "block_factor_of_the_reader": Mutant(
        FACTORS, "scale[-1], xp.concat([scale] * count)[:, None]", "xp.concat([scale] * count)[:, None], xp.concat([scale] * count)[:, None]",
        "reference", "earlier mini-batches of a block are read with the reader's factor", DUAL, "torch",
    ),
    "block_strict": Mutant(
        FACTORS, "j <= i", "j < i", "reference", "in a block a token does not read its own update", CAUSAL, "torch",
    ),
    "block_tail_steps": Mutant(
        LOOP, "where_valid(done, scale[-1] * tokens[-1])", "scale[-1] * tokens[-1]", "split",
        "an open mini-batch at the end of a block steps the weights", TAIL, "torch",
    ),
    "block_sum_lost": Mutant(
        LOOP, "choose(done[0, ...], last[name], total[name])", "choose(done[0, ...], 0 * last[name], total[name])", "split",
        "S of the mini-batch that is left open after a block is not returned", TAIL, "torch",
    ),
    "block_sum_made_anew": Mutant(
        LOOP, "choose(done[0, ...], last[name], total[name])", "last[name]", "mask",
        "a row that ends within its first mini-batch loses the S that it was given", TAIL, "torch",
    ),
    "block_tail_of_the_first_row": Mutant(
        "tttcore.sequence.grid:Grid.open", "begin - self.phase", "begin[:1] - self.phase + 0 * begin", "mask",
        "S is summed over the tokens that the first row leaves open", GRID, "torch",
    ),
    "block_sum_detached": hidden(
        LOOP, "last[name], total[name]", "last[name].detach(), total[name]", "S of the mini-batch that is left open after a block has no gradient",
    ),
    "block_steps_detached": hidden(
        TRAIN, "after[name] - step", "after[name] - step.detach()", "gradients stop at the border of a block",
    ),
}  # fmt: skip
