"""The choice of the device, with and without the hardware."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantum_diffusion.device import multiplies_in_bfloat16, select_device
from quantum_diffusion.errors import ConfigError


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (2, True, "auto", "cuda"),
        (0, True, "auto", "mps"),
        (2, True, "cpu", "cpu"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_selection(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, name: str, expected: str) -> None:
    pretend(monkeypatch, cuda=cuda, mps=mps)
    assert select_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", r"device is 'cuda', but this machine has 0 CUDA devices; use 'auto' or 'cpu'"),
        ("cuda:0", "has 0 CUDA devices"),
        ("mps", "device is 'mps', but this machine has no MPS device; use 'auto' or 'cpu'"),
        ("gpu", "unknown device 'gpu'"),
        ("cudda", "did you mean 'cuda'"),
        ("cuda:x", "unknown device 'cuda:x': did you mean 'cuda:0'"),
        ("cuda:-1", "unknown device 'cuda:-1'"),
        ("cpu:0", "unknown device 'cpu:0': did you mean 'cpu'"),
        ("auto:0", "unknown device 'auto:0'"),
        ("", "unknown device ''"),
    ],
)
def test_refusal(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    pretend(monkeypatch)
    with pytest.raises(ConfigError, match=message):
        select_device(name)


def test_a_cuda_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=2)
    with pytest.raises(ConfigError, match="this machine has 2 CUDA devices"):
        select_device("cuda:2")


def test_bfloat16_where_the_processor_says_so() -> None:
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    expected = "avx512_bf16" in flags or "amx_bf16" in flags
    assert multiplies_in_bfloat16(torch.device("cpu")) is expected
    assert multiplies_in_bfloat16(torch.device("mps")) is False
