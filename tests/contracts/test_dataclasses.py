"""What holds for every dataclass of the package."""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator

import numpy as np
import torch
from qiskit import QuantumCircuit

import quantum_diffusion


def dataclasses_of_the_package() -> Iterator[type]:
    for info in pkgutil.walk_packages(quantum_diffusion.__path__, "quantum_diffusion."):
        for _, kind in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if kind.__module__ == info.name and dataclasses.is_dataclass(kind):
                yield kind


def holds_arrays(annotation: object) -> bool:
    """Tell whether values of a type are arrays, or hold some; functions hold none."""
    origin = typing.get_origin(annotation) or annotation
    if origin is Callable:
        return False
    is_array = isinstance(origin, type) and issubclass(origin, np.ndarray | torch.Tensor | torch.nn.Module)
    return is_array or any(map(holds_arrays, typing.get_args(annotation)))


def test_what_holds_arrays_is_equal_only_to_itself() -> None:
    """A generated `==` compares arrays, whose answer is an array and no yes or no: it raises."""
    holders = []
    for kind in dataclasses_of_the_package():
        hints = typing.get_type_hints(kind, localns={"torch": torch, "QuantumCircuit": QuantumCircuit})
        if any(holds_arrays(hints[field.name]) for field in dataclasses.fields(kind)):
            holders.append(kind)
    assert len(holders) > 10
    assert [kind.__qualname__ for kind in holders if kind.__eq__ is not object.__eq__] == []
