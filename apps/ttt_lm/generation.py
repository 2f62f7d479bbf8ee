"""A prompt and what a model makes of it, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

import ttt_torch.models  # noqa: F401 (registers TTT with the Auto classes)
from tttcore import InvalidInput

from . import checkpoint
from .recipe import VOCABULARY


def load(path: Path, device: str) -> Any:
    """The model of a run's newest checkpoint, or of a folder that ``save_pretrained`` wrote; its tokens must be bytes."""
    folder = checkpoint.newest(path) or path
    if not (folder / "config.json").is_file():
        raise InvalidInput(str(path), got="no checkpoint", expected="a run of ttt train, or a model's folder", fix="check the path")
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidInput(str(folder), got=f"{type(error).__name__}: {error}", expected="a whole model", fix="bring a copy of it") from error
    model, found = loaded
    wrong = {what: names for what, names in found.items() if names}
    if wrong:
        raise InvalidInput(str(folder), got=f"{wrong}", expected="exactly the tensors of its config", fix="bring a copy of it")
    if model.config.vocab_size != VOCABULARY:
        got = f"a vocabulary of {model.config.vocab_size}"
        raise InvalidInput(str(folder), got=got, expected=f"{VOCABULARY}: bytes", fix="use a model of bytes, or transformers and its tokenizer")
    return model.to(device).eval()


def continue_text(model: Any, prompt: bytes, tokens: int, temperature: float, seed: int, show: Callable[[bytes], None], chunk: int = 4096) -> None:
    """Give ``show`` the prompt and each byte of its continuation. Temperature 0 takes the likeliest byte.

    The prompt is read ``chunk`` bytes at a time. Raises ``InvalidInput`` for no prompt, and for more text than
    attention was trained to look back on.
    """
    if not prompt:
        raise InvalidInput("--prompt", got="nothing", expected="at least one byte", fix="pass a text to continue")
    most = getattr(model.config, "max_position_embeddings", None) if model.config.model_type == "llama" else None
    if most is not None and len(prompt) + tokens > most:
        got = f"{len(prompt)} bytes and {tokens} to come"
        raise InvalidInput("--prompt", got=got, expected=f"together {most} at most, as attention was trained", fix="shorten it, or lower --tokens")
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    ids = torch.tensor([list(prompt)], device=model.device)
    model.generate(ids, max_new_tokens=tokens, prefill_chunk_size=chunk if ids.shape[1] > chunk else None, streamer=_Bytes(show), **sampling)


class _Bytes(BaseStreamer):
    """Hands on the prompt, and every token as it comes."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self.show = show

    def put(self, value: torch.Tensor) -> None:
        """All that is new."""
        self.show(bytes(value.flatten().tolist()))

    def end(self) -> None:
        """Nothing is held back."""
