"""The compilers as a method of Qiskit's unitary synthesis: `transpile(..., unitary_synthesis_method=...)`.

Qiskit finds the class by its entry point and hands it each block of three to five qubits. What the models cannot do, or
do no better, is left to Qiskit's own method.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import yaml
from qiskit.converters import circuit_to_dag, dag_to_circuit
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Operator
from qiskit.transpiler.passes.synthesis.plugin import UnitarySynthesisPlugin

from quantum_diffusion.arguments import check_count, check_kind, check_number
from quantum_diffusion.circuits.backends.devices import Device, DeviceObjective, cost, device_of
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import Matrix
from quantum_diffusion.circuits.invariants import broken_invariants
from quantum_diffusion.errors import ConfigError, GateSetError, unknown_name
from quantum_diffusion.pretrained import DEFAULTS, PREFIX, WEIGHTS, model_folders

if TYPE_CHECKING:  # torch takes seconds, and most blocks need none of it
    from qiskit import QuantumCircuit
    from qiskit.dagcircuit import DAGCircuit

    from quantum_diffusion.pipeline.diffusion import DiffusionPipeline

logger = logging.getLogger(__name__)

MIN_QUBITS, MAX_QUBITS = 3, 5
"""Qubits of blocks. Of fewer, Qiskit's own circuits have as few two-qubit gates as is possible."""

_SHIPPED = tuple(PREFIX + name for name in DEFAULTS["compile"])

_TOLERANCE = 1e-8
"""Of the entries of a matrix. What is only nearly a circuit's has an infidelity below `EXACT`, but is another block."""

_INTEGER_GATES = ("cx", "z", "x", "ccx", "swap", "y", "cz", "cswap")
"""Gates whose entries are whole numbers, up to a global phase."""

_MOST_OF_CHEAP = 3
"""Two-qubit gates of a cheap gate: swap is one, ccx is not."""

_MOST_FOUND, _MOST_TRANSLATED, _MOST_TRIES = 256, 6, 512
"""Circuits kept of a search, those of them that look cheapest and are translated, and the width of the widest beam."""


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """What `unitary_synthesis_plugin_config` may say.

    Attributes:
        model: A folder, pretrained:NAME or hf://owner/name; None takes the shipped compilers.
        max_seconds: Most time to search for each different block, and most blocks use it up.
        objective: What to keep low: "two_qubit_gates", "depth" or "gates"; what is equal in it goes by the others.
        max_qubits: Larger blocks are left to Qiskit, 3 to 5.
        placed: Whether blocks lie on the qubits of the device already, so that gates have to keep to coupled pairs. In
            `transpile` they do not: it synthesizes blocks of three qubits or more before it places them.
        seed: Seed of the search.
    """

    model: str | None = None
    max_seconds: float = 1.0
    objective: DeviceObjective = "two_qubit_gates"
    max_qubits: int = MAX_QUBITS
    placed: bool = False
    seed: int = 0

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> PluginConfig:
        """Read what a user gave.

        Raises:
            ConfigError: A key is unknown, or a value is out of its range.
        """
        given = check_kind({} if given is None else given, dict, "unitary_synthesis_plugin_config")
        known = [key.name for key in fields(cls)]
        for key in given:
            if key not in known:
                raise ConfigError(unknown_name("key of unitary_synthesis_plugin_config", key, known))
        config = cls(**given)
        if config.model is not None:
            name = check_kind(config.model, str, "model")
            if name.startswith(PREFIX) and name not in _SHIPPED:
                raise ConfigError(f"{unknown_name('model', name, _SHIPPED)}; or give the folder of a model")
        check_number(config.max_seconds, "max_seconds")
        if not 0 < config.max_seconds < float("inf"):
            raise ConfigError(f"max_seconds is {config.max_seconds}: give seconds, e.g. 1.0")
        if config.objective not in get_args(DeviceObjective):
            raise ConfigError(unknown_name("objective", config.objective, get_args(DeviceObjective)))
        if not MIN_QUBITS <= check_count(config.max_qubits, "max_qubits") <= MAX_QUBITS:
            raise ConfigError(f"max_qubits is {config.max_qubits}: give {MIN_QUBITS} to {MAX_QUBITS}")
        check_kind(config.placed, bool, "placed")
        check_count(config.seed, "seed")
        return config


class QuantumDiffusionSynthesis(UnitarySynthesisPlugin):  # type: ignore[misc] # Qiskit ships no types
    """Qiskit's view of the compilers; `docs/qiskit.md` has its options."""

    supports_basis_gates = True
    supports_coupling_map = True
    supports_target = True
    # For Qiskit's own method, which has the rest.
    supports_natural_direction = True
    supports_pulse_optimize = True
    supports_gate_lengths_by_qubit = True
    supports_gate_errors_by_qubit = True
    supports_gate_lengths = False
    supports_gate_errors = False
    supported_bases = None
    min_qubits = MIN_QUBITS
    max_qubits = MAX_QUBITS

    def run(self, unitary: Matrix, **options: Any) -> DAGCircuit | None:
        """Return a circuit that is a unitary, its global phase included.

        Args:
            unitary: complex128 [D, D].
            **options: What Qiskit tells its plugins; `config` is the user's.

        Returns:
            The better of ours and Qiskit's own; None, which leaves the block as it is, where any gate is allowed.

        Raises:
            ConfigError: The user's configuration is wrong.
            CheckpointError: The user's model cannot be loaded.
        """
        config = PluginConfig.read(options.pop("config", None))
        matrix = np.ascontiguousarray(unitary, dtype=np.complex128)
        coupling, qubits = options["coupling_map"]
        target, basis_gates = options["target"], options["basis_gates"]
        if target is None and not basis_gates:
            return None  # every gate is allowed, this one as well: Qiskit leaves it, too
        device = device_of(target, basis_gates, coupling, qubits)
        fits = device.basis and len(qubits) <= config.max_qubits
        ours = _best_circuit(matrix.tobytes(), device, config) if fits else None
        if ours is None:
            return _by_default(unitary, options)
        with suppress(QiskitError):
            default = _by_default(unitary, options)
            if not _is_as_cheap(ours, dag_to_circuit(default), device, config):
                logger.info("block on qubits %s: Qiskit's own circuit is cheaper", qubits)
                return default
        return circuit_to_dag(ours.circuit)


def _by_default(unitary: Matrix, options: Mapping[str, Any]) -> DAGCircuit:
    return _default_method().run(unitary, **options)


@lru_cache(maxsize=1)
def _default_method() -> Any:
    """Return Qiskit's own method, which has moved between its versions."""
    (entry,) = entry_points(group="qiskit.unitary_synthesis", name="default")
    return entry.load()()


# --------------------------------------------------------------------------------------------------- circuits


@dataclass(frozen=True, order=True)
class _Rated:
    """A circuit and what it costs.

    Attributes:
        cost: On the device, as far as is known: placed, routed and optimized by Qiskit, unless it is placed already.
        plain: With its qubits where they are, optimized.
        circuit: In the basis.
    """

    cost: tuple[int, ...]
    plain: tuple[int, ...]
    circuit: QuantumCircuit = field(compare=False)


def _rated(native: QuantumCircuit, device: Device, config: PluginConfig, placed: bool) -> _Rated | None:
    """Rate a circuit; None where Qiskit cannot compile it for the device."""
    plain = device.in_basis(native)
    final = plain if placed else device.routed(native)
    if plain is None or final is None:
        return None
    return _Rated(cost(final, config.objective), cost(plain, config.objective), native)


def _is_as_cheap(ours: _Rated, default: QuantumCircuit, device: Device, config: PluginConfig) -> bool:
    """Tell whether a circuit costs no more than Qiskit's own; without a coupling, also where its qubits stay."""
    theirs = _rated(default, device, config, placed=config.placed and device.pairs is None)
    return theirs is None or (ours.cost <= theirs.cost and (device.pairs is not None or ours.plain <= theirs.plain))


@lru_cache(maxsize=256)
def _best_circuit(matrix: bytes, device: Device, config: PluginConfig) -> _Rated | None:
    """Return the cheapest circuit for a device that is exactly a unitary; None where none is found.

    A block that comes again, as in circuits of many equal layers, is not searched for again.
    """
    values = np.frombuffer(matrix, dtype=np.complex128)
    unitary = values.reshape(math.isqrt(len(values)), -1)
    model = _model_for(config.model, len(unitary).bit_length() - 1)
    if model is None:
        return None
    rated: list[_Rated | None] = []
    done: list[Device] = []
    left = config.max_seconds
    searches = _searches(unitary, model, device, config.placed)
    for number, (where, gates) in enumerate(searches, start=1):
        if where in done:
            continue
        circuits, seconds = _found(unitary, model, gates, where, config.seed, left / 2 if searches[number:] else left)
        left -= min(seconds, left / 2)  # a search may end late
        done += [where] if circuits else []
        for circuit in _promising(circuits, where.costs(gates), config.placed):
            exact = (_with_phase(translated, unitary) for translated in where.translate(circuit))
            rated += [_rated(native, device, config, config.placed) for native in exact if native is not None]
    best = min(filter(None, rated), default=None)
    if searches and best is None:
        logger.info("block of %d qubits: no circuit found in time", len(unitary).bit_length() - 1)
    return best


def _searches(unitary: Matrix, model: _Model, device: Device, placed: bool) -> list[tuple[Device, tuple[str, ...]]]:
    """Return on which pairs and with which gates to search for a unitary; empty where no circuit can be it.

    What is placed later may join any pairs, or already only those that are coupled if it is placed in order. If gates
    that are cheap may do, they come first: with ccx at hand the model takes it for what three cx can do.
    """
    searches = []
    for where in dict.fromkeys([device] if placed else [Device(device.basis), device]):
        costs = where.costs(model.gates)
        if any(costs.values()) and not _is_out_of_reach(unitary, tuple(costs), model.max_gates):
            cheap = tuple(gate for gate in costs if costs[gate] <= _MOST_OF_CHEAP)
            may_be_cheap = not broken_invariants(unitary, cheap)
            searches += [(where, gates) for gates in ([cheap] if may_be_cheap else []) + [tuple(costs)]]
    if not searches:
        logger.info("block of %d qubits: no circuit of %s", len(unitary).bit_length() - 1, list(model.gates))
    return list(dict.fromkeys(searches))


def _found(
    unitary: Matrix, model: _Model, gates: tuple[str, ...], device: Device, seed: int, max_seconds: float
) -> tuple[list[Circuit], float]:
    """Search for circuits of some gates; also returns the seconds it took."""
    from quantum_diffusion.pipeline.editing import Edit
    from quantum_diffusion.search.exact import find_exact

    pipeline = _pipeline(model.folder, os.getpid())
    try:
        result = find_exact(
            pipeline,
            unitary,
            gates=gates,
            num_circuits=_MOST_FOUND,
            max_tries=_MOST_TRIES,
            seed=seed,
            max_seconds=max_seconds,
            objective={"two_qubit_gates": 1, "gates": 0.01},
            edit=Edit(coupling=device.pairs),
        )
    except (ConfigError, GateSetError) as problem:  # proven to be impossible
        logger.info("no circuit of %s: %s", list(gates), problem)
        return [], 0.0
    if result.interrupted:  # with what was found until then, but it is Qiskit that is to end
        raise KeyboardInterrupt
    return [found.circuit for found in result.circuits], result.seconds


def _promising(circuits: Sequence[Circuit], costs: Mapping[str, int], placed: bool) -> list[Circuit]:
    """Return some circuits, those that seem cheapest."""
    chosen = _cheapest(circuits, costs)
    if not placed and "swap" in costs:  # Qiskit numbers the qubits anew for a swap, where it may
        chosen += _cheapest(circuits, {**costs, "swap": 0})
    return list(dict.fromkeys(chosen))


def _cheapest(circuits: Sequence[Circuit], costs: Mapping[str, int]) -> list[Circuit]:
    def estimate(circuit: Circuit) -> tuple[int, int]:
        return sum(costs[step.gate] for step in circuit.instructions), len(circuit)

    return sorted(circuits, key=estimate)[:_MOST_TRANSLATED]


def _with_phase(native: QuantumCircuit, unitary: Matrix) -> QuantumCircuit | None:
    """Give a circuit the global phase that makes it a unitary; None where none does."""
    made = Operator(native).data
    phase = float(np.angle(np.vdot(made, unitary)))
    if np.abs(made * np.exp(1j * phase) - unitary).max() > _TOLERANCE:
        return None
    native.global_phase += phase
    return native


# ---------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class _Model:
    """A model and what it can write."""

    folder: Path
    gates: tuple[str, ...]
    num_qubits: int
    max_gates: int


def _model_for(name: str | None, num_qubits: int) -> _Model | None:
    """Return the first of the models that has so many qubits."""
    models = map(_described, model_folders(name, "compile"))
    return next((model for model in models if num_qubits <= model.num_qubits), None)


@lru_cache(maxsize=16)
def _described(folder: Path) -> _Model:
    """Say what a model can write; those that are shipped are not loaded for it."""
    if folder.parent == WEIGHTS:
        params = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["params"]
        return _Model(folder, tuple(params["gate_pool"]), params["num_qubits"], params["max_gates"])
    config = (pipeline := _pipeline(folder, os.getpid())).config
    return _Model(folder, pipeline.gate_pool.names, config.num_qubits, config.max_gates)


@lru_cache(maxsize=8)
def _pipeline(folder: Path, process: int) -> DiffusionPipeline:
    """Load a model, once in each process: Qiskit compiles several circuits in several."""
    import torch

    from quantum_diffusion.search.sampling import load_answering

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the threads of the process that this was forked from are not here
    return load_answering("compile", folder, "cpu")


def _is_out_of_reach(unitary: Matrix, gates: Sequence[str], max_gates: int) -> bool:
    """Tell at once, without a model, whether a unitary is no circuit of some gates; False proves nothing."""
    if broken_invariants(unitary, gates):
        return True
    if not {*gates} <= {"h", *_INTEGER_GATES}:
        return False
    # Each h divides whole numbers by the root of two; nothing else does anything but to move and add them.
    largest = unitary.reshape(-1)[np.abs(unitary).argmax()]
    scaled = unitary * (np.conj(largest) / abs(largest))
    for _ in range(max_gates + 1):
        if np.abs(scaled - scaled.round()).max() < 1e-4:
            return False
        scaled = scaled * np.sqrt(2)
    return True
