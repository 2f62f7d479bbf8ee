"""Wrong blocks of mini-batches, over the backend that computes in them."""

from __future__ import annotations

from .gradients import hidden
from .mutant import Mutant

BLOCK, FACTORS, LOOP = "tttcore.forms.block:mini_batches", "tttcore.forms.block:reading_factors", "tttcore.inner_loop:_by_block"
DUAL, TAIL, GRID = "docs/mathematics.md#7-block-dual", "docs/decisions.md#11-a-ragged-tail-is-not-an-update", "docs/mathematics.md#101-the-grid"
CAUSAL = "docs/decisions.md#5-causality-is-inclusive"

MUTANTS = {
    "block_rows_at_its_start": Mutant(
        BLOCK, "return z - seen @ g_past", "return z - 0 * (seen @ g_past)", "reference",
        "training rows of a block do not see the mini-batches before theirs", DUAL, "torch",
    ),
    "block_chain_at_its_start": Mutant(
        BLOCK, "return h_bar - (", "return h_bar - 0 * (", "reference",
        "below the last map gradients of a block go through the weights at its start", DUAL, "torch",
    ),
    "block_upper_bias_at_its_start": Mutant(
        BLOCK, "(x @ xp.matrix_transpose(x_past) + ones)", "(x @ xp.matrix_transpose(x_past))", "reference",
        "biases above the first map do not move within a block", DUAL, "torch",
    ),
    "block_factor_of_the_reader": Mutant(
        FACTORS, "scale[-1], xp.concat([scale] * count)[:, None]", "xp.concat([scale] * count)[:, None], xp.concat([scale] * count)[:, None]",
        "reference", "earlier mini-batches of a block are read with the reader's factor", DUAL, "torch",
    ),
    "block_strict": Mutant(
        FACTORS, "j <= i", "j < i", "reference", "in a block a token does not read its own update", CAUSAL, "torch",
    ),
    "block_tail_steps": Mutant(
        BLOCK, "where_valid(done, xp.permute_dims(stepping, (0, 2, 1, 3)))", "xp.permute_dims(stepping, (0, 2, 1, 3))", "split",
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
        BLOCK, "weight - steps[name]", "weight - steps[name].detach()", "gradients stop at the border of a block",
    ),
}  # fmt: skip
