"""The compiled operator is compared with plain PyTorch once per card and build."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch

import dcn
from dcn import build, choice, verify
from dcn import compiled as compiled_module


@pytest.fixture
def card(monkeypatch, tmp_path):
    """Simulate a CUDA card that the compiled operator was built for; returns the path of the library."""
    monkeypatch.setattr(compiled_module, "available", lambda device: True)
    monkeypatch.setattr(build, "library_path", lambda: tmp_path / "dcn-1.so")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(verify, "_card", lambda index: f"card {index} (9.0)")
    monkeypatch.setattr(verify, "_known", {})
    monkeypatch.setattr(choice, "_logged", set())
    return tmp_path / "dcn-1.so"


def test_card_is_checked_once_per_build(card, monkeypatch):
    asked = []
    monkeypatch.setattr(verify, "_in_other_process", lambda index: asked.append(index) or "")
    assert dcn.choice.implementation("cuda") == dcn.choice.implementation("cuda") == "compiled"
    assert asked == [0]
    monkeypatch.setattr(verify, "_known", {})  # as in the next process
    assert dcn.choice.implementation("cuda") == "compiled" and asked == [0]
    assert choice._chosen(None, "cuda", 1) == "compiled" and asked == [0, 1]  # another kind of card
    assert json.loads(card.with_suffix(".cards.json").read_text()) == {"card 0 (9.0)": "", "card 1 (9.0)": ""}


@pytest.mark.parametrize("torchvision", [True, False])
def test_next_backend_is_used_where_the_compiled_operator_is_wrong(card, monkeypatch, caplog, torchvision):
    monkeypatch.setattr(
        verify, "_in_other_process", lambda index: "output in float64 differs from plain PyTorch's by 1e-2"
    )
    monkeypatch.setattr(choice, "_torchvision", lambda: torchvision)
    with caplog.at_level(logging.WARNING, logger="dcn"):
        for _ in range(3):
            assert dcn.choice.implementation("cuda") == ("torchvision" if torchvision else "plain")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 and "not used on card 0 (9.0): output in float64 differs" in messages[0]
    assert messages[0].endswith(f"remove {card.with_suffix('.cards.json')} to compare again")
    dcn.set_backend("compiled")  # an explicit choice is used
    assert dcn.choice.implementation("cuda") == "compiled"


def test_full_card_is_compared_by_the_next_process(card, monkeypatch, caplog):
    """Another program that fills the card must not decide about later runs."""

    def ran(*arguments, **settings):
        error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"
        return subprocess.CompletedProcess(arguments, 1, "", f"Traceback\n{error}\n")

    monkeypatch.setattr(subprocess, "run", ran)
    monkeypatch.setattr(choice, "_torchvision", lambda: None)
    with caplog.at_level(logging.WARNING, logger="dcn"):
        assert [dcn.choice.implementation("cuda") for _ in range(2)] == ["plain", "plain"]
    assert "no memory for the comparison with plain PyTorch (torch.OutOfMemoryError" in caplog.messages[0]
    assert not card.with_suffix(".cards.json").exists()
    monkeypatch.setattr(verify, "_known", {})
    monkeypatch.setattr(verify, "_in_other_process", lambda index: "")
    assert dcn.choice.implementation("cuda") == "compiled"


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"card 0 (9.0)": 3}'])
def test_damaged_card_record_is_replaced(card, monkeypatch, content):
    card.with_suffix(".cards.json").write_text(content)
    monkeypatch.setattr(verify, "_in_other_process", lambda index: "")
    assert dcn.choice.implementation("cuda") == "compiled"
    assert json.loads(card.with_suffix(".cards.json").read_text()) == {"card 0 (9.0)": ""}


def test_comparison_that_cannot_run_is_reported(monkeypatch):
    """Without a card the subprocess cannot compare, so the comparison runs in this process."""
    monkeypatch.setattr(verify, "disagreement", lambda device: f"compared in this process on {device}")
    if not torch.cuda.is_available():
        assert verify._in_other_process(0) == "compared in this process on cuda:0"
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert verify._in_other_process(0) == "the comparison with plain PyTorch failed: exit code 1"


def test_comparison_accepts_correct_and_finds_wrong_results(compiled):
    forward, backward = torch.ops.dcn.deform_conv2d, torch.ops.dcn.deform_conv2d_backward
    cpu = torch.device("cpu")
    assert verify.disagreement(cpu) == ""
    assert "output in float64" in verify.disagreement(cpu, lambda *a: forward(*a) * 1.001)

    def wrong_mask(*arguments):
        found = list(backward(*arguments))
        found[3][0, 0, 0, 0] += 0.1
        return found

    assert "gradient of mask in float64" in verify.disagreement(cpu, backward=wrong_mask)

    def half_is_nan(*arguments):
        return forward(*arguments) * (float("nan") if arguments[0].dtype == torch.float16 else 1)

    assert "output in float16 differs from plain PyTorch's by nan" in verify.disagreement(cpu, half_is_nan)
