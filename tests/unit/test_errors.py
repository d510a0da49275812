"""The wording of a name that is not known."""

from __future__ import annotations

import errno
import inspect

import numpy as np
import pytest
import torch

from quantum_diffusion import errors
from quantum_diffusion.errors import (
    OutOfMemoryError,
    QuantumDiffusionError,
    memory_for,
    only_warn,
    quoted,
    unknown_name,
)


@pytest.mark.parametrize(
    ("given", "valid", "message"),
    [
        ("adm", ["sgd", "adam"], "unknown optimizer 'adm': did you mean 'adam'? (valid: adam, sgd)"),
        ("zzz", ["sgd", "adam"], "unknown optimizer 'zzz' (valid: adam, sgd)"),
        ("zzz", [], "unknown optimizer 'zzz' (valid: none)"),
        (3, ["sgd"], "unknown optimizer 3 (valid: sgd)"),
        (None, ["sgd"], "unknown optimizer None (valid: sgd)"),
        ("a\nb", ["sgd"], "unknown optimizer 'a\\nb' (valid: sgd)"),
    ],
)
def test_the_nearest_valid_name_is_suggested(given: object, valid: list[str], message: str) -> None:
    assert unknown_name("optimizer", given, valid) == message


def test_many_valid_names_are_left_out_when_one_is_near() -> None:
    names = [f"name{number}" for number in range(16)]
    assert unknown_name("key", "name3x", names) == "unknown key 'name3x': did you mean 'name3'?"
    assert "name15" in unknown_name("key", "zzz", names)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ghz:3", "'ghz:3'"),
        ("x" * 60, repr("x" * 60)),
        ("x" * 5000, repr("x" * 60) + "... (5,000 characters)"),
        (["x" * 5000], "['" + "x" * 58 + "... (5,004 characters)"),
        ("a\nb", r"'a\nb'"),
    ],
    ids=["short", "as long as allowed", "long", "long list", "two lines"],
)
def test_what_is_long_is_quoted_in_part(given: object, said: str) -> None:
    assert quoted(given) == said
    assert f"unknown key {said}" in unknown_name("key", given, ["seed"])


def test_every_error_of_ours_can_be_caught_as_one() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(classes) >= 6
    assert all(issubclass(kind, QuantumDiffusionError) for kind in classes)


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**9,), np.dtype(float)),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_lack_of_memory_is_told_in_one_line_whoever_notices_it(problem: Exception) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"^out of memory while training: lower batch_size$"),
        memory_for("training", "lower batch_size"),
    ):
        raise problem


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("shapes differ"),
        ValueError("no"),
        ImportError("/tmp/lib.so: failed to map segment from shared object: Operation not permitted"),
        ImportError("/lib/libgomp.so.1: cannot allocate memory in static TLS block"),
        OutOfMemoryError("told before"),
    ],
)
def test_other_errors_pass_and_the_innermost_word_on_memory_stands(problem: Exception) -> None:
    with pytest.raises(type(problem)) as raised, memory_for("training", "lower batch_size"):
        raise problem
    assert raised.value is problem


def test_torch_says_lack_of_memory_in_words_that_are_known() -> None:
    with pytest.raises(OutOfMemoryError), memory_for("asking for 4 exabytes", "ask for less"):
        torch.empty(2**60)


def test_what_is_not_essential_only_warns(caplog: pytest.LogCaptureFixture) -> None:
    with only_warn("the picture 'a.png'"):
        raise ValueError("no font\nmore")
    assert caplog.messages == ["the picture 'a.png' could not be made: no font"]
