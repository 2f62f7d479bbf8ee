"""Checkpoints of transformers' kind: saved whole or not at all, loaded whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from tttcore import InvalidInput
from tttcore.files import atomic_folder
from tttcore.language_model import LoadingReport


class Checkpoints(PreTrainedModel):
    """``save_pretrained`` and ``from_pretrained`` that keep what is there when they fail, and say why.

    pyright is told to pass over both: transformers names its many keywords, which are handed on here.
    """

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, state_dict: dict[str, torch.Tensor] | None = None, **kwargs: Any
    ) -> None:
        """As transformers' own, by ``tttcore.files.atomic_folder``: a full disk or a kill leaves an older checkpoint as it was.

        A ``distributed_checkpoint`` is written by several processes into one folder, and so by transformers alone.
        """
        save = super().save_pretrained
        if not self.should_save_on_this_rank(is_main_process) or kwargs.get("distributed_checkpoint"):
            save(save_directory, is_main_process, state_dict, **kwargs)
            return
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", Path(save_directory).name)
        dot = f".{kwargs['variant']}" if kwargs.get("variant") else ""
        owns = (f"model{dot}.safetensors", f"model{dot}-*-of-*.safetensors", f"model.safetensors.index{dot}.json")
        needs = sum(x.nbytes for x in self.parameters())
        with atomic_folder(save_directory, needs=needs, owns=owns) as fresh:
            save(fresh, is_main_process, state_dict, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        strict: bool = True,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As transformers' own; a checkpoint is loaded whole or refused.

        Raises ``InvalidInput`` for a file that is cut short or no safetensors file, and, unless ``strict=False``, for tensors that no parameter
        takes, parameters that no tensor fills, and shapes that differ. ``ignore_mismatched_sizes=True`` draws anew those whose shapes differ.
        """
        path = pretrained_model_name_or_path
        try:
            loaded: Any = super().from_pretrained(path, *args, ignore_mismatched_sizes=True, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            file = _broken(path, kwargs.get("subfolder", "")) or path
            fix = "copy it again from where it is whole, or load an older checkpoint"
            raise InvalidInput(f"checkpoint {file}", got=f"a file that cannot be read ({error})", expected="a safetensors file", fix=fix) from error
        model, info = loaded
        _check(path, info, strict=strict, shapes=strict and not ignore_mismatched_sizes, head=cls.base_model_prefix in dict(model.named_children()))
        return (model, info) if output_loading_info else model


def _check(path: Any, info: Mapping[str, Any], *, strict: bool, shapes: bool, head: bool) -> None:
    """Raise ``InvalidInput`` for what transformers would warn of. A model without a head has no use for the head's tensors."""
    unexpected = [name for name in info["unexpected_keys"] if head or not name.startswith("lm_head.")]
    report = LoadingReport(
        unused=tuple(sorted(unexpected)) if strict else (),
        missing=tuple(sorted(info["missing_keys"])) if strict else (),
        mismatched={name: (tuple(got), tuple(expected)) for name, got, expected in sorted(info["mismatched_keys"])} if shapes else {},
    )
    try:
        report.check(f"tensors of {path}")
    except InvalidInput as error:
        error.add_note("strict=False takes what fits and draws the rest anew.")
        raise


def _broken(path: Any, subfolder: str) -> Path | None:
    """The first safetensors file of a local folder that cannot be opened."""
    for file in sorted((Path(path) / subfolder).glob("*.safetensors")) if path is not None else ():
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return file
    return None
