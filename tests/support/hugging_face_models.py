"""Hugging Face models as small as they get, in float64, with weights so large that every part shows."""

import functools

import torch
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, logging

logging.set_verbosity_error()

VOCABULARY, PAD, K = 19, 0, 4
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": None}
WIDTHS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
DECODER = WIDTHS | TOKENS
GROUPED = DECODER | {"num_key_value_heads": 2}

DECODERS = {
    "llama": ("llama", DECODER),
    "grouped": ("llama", GROUPED | {"attention_bias": True}),
    "mistral": ("mistral", GROUPED | {"sliding_window": 5}),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", GROUPED | {"head_dim": 6}),
    "olmo2": ("olmo2", GROUPED),
    "phi3": ("phi3", GROUPED),
    "starcoder2": ("starcoder2", GROUPED),
    "bert": ("bert", WIDTHS | TOKENS | {"is_decoder": True, "max_position_embeddings": 64}),
    "gpt2": ("gpt2", {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 64} | TOKENS),
}
PORTS = [(name, "alternate") for name in DECODERS] + [("grouped", "all"), ("gpt2", "all"), ("qwen3", [0])]
"""Decoders, and which layers of them are ported."""

ENCODERS = {
    "vit": ("vit", WIDTHS | {"image_size": 12, "patch_size": 4}),
    "bert": ("bert", WIDTHS | TOKENS | {"max_position_embeddings": 12}),
}


def large(model):
    """The model in float64 and evaluation mode, its weights disturbed."""
    model = model.double().eval()
    with torch.no_grad():
        for x in model.parameters():
            x.add_(0.3 * torch.randn_like(x))
    return model


@functools.cache
def decoder(name, **changes):
    """The same model for all who ask: nobody may change it."""
    torch.manual_seed(0)
    model_type, sizes = DECODERS[name]
    return large(AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes | changes)))


@functools.cache
def encoder(name):
    """As ``decoder``."""
    torch.manual_seed(0)
    model_type, sizes = ENCODERS[name]
    return large(AutoModel.from_config(CONFIG_MAPPING[model_type](**sizes)))


def tokens_of(rows=2, length=11):
    """Random tokens, none of them padding."""
    return torch.randint(2, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))
