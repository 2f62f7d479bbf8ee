"""The page about porting runs as it stands."""

import re
from pathlib import Path

import torch


def test_the_page_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs/porting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope = {"__name__": "porting"}
    for block in blocks:
        exec(compile(block, "porting.md", "exec"), scope)
    (shown,) = re.findall(r"print\(cache\)  # (.*)", text)
    assert repr(scope["cache"]) == shown


def test_the_page_names_the_architectures():
    from ttt_torch.porting import ARCHITECTURES

    text = (Path(__file__).parents[3] / "docs/porting.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"Architectures: (.*?)\.\n", text, re.DOTALL)
    names = re.findall(r"[A-Z][A-Za-z]*-?\d?", named.replace("Architectures", ""))
    assert {name.lower().replace("-", "") for name in names} == set(ARCHITECTURES)
