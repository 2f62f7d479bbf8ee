"""Language models that are small, and in float64 so that equal is equal."""

import pytest
import torch

from ttt_torch.models import TTTConfig, TTTForCausalLM
from tttcore.language_model.spec import BACKBONES

EXACT = {"rtol": 0, "atol": 0}
# Of float64: roundings of 2e-16, which a LayerNorm enlarges by up to 1/√ε = 1e3, in two blocks.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
"""In float64: the same numbers by another way."""
PAD = 0

every_kind = pytest.mark.parametrize(("backbone", "inner"), [(backbone, inner) for backbone in BACKBONES for inner in ("linear", "mlp")])


def config_of(backbone="mamba", inner="linear", **changes):
    """Two blocks of two heads, a mini-batch of 4."""
    sizes = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "mini_batch_size": 4}
    tokens = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": PAD}
    return TTTConfig.named("125m", backbone=backbone, inner=inner, **sizes | tokens | changes)


def model_of(*args, dtype=torch.float64, **changes):
    """With parameters so large that every part shows in the logits."""
    torch.manual_seed(0)
    model = TTTForCausalLM(config_of(*args, **changes)).to(dtype).eval()
    with torch.no_grad():
        for x in model.parameters():
            x.add_(0.3 * torch.randn_like(x))
    return model


def tokens_of(rows=2, length=11):
    """Random ones, none of them padding."""
    return torch.randint(1, 19, (rows, length), generator=torch.Generator().manual_seed(1))
