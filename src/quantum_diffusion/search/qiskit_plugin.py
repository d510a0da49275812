"""A plugin for Qiskit's unitary synthesis that uses the compilers: `transpile(..., unitary_synthesis_method=...)`.

Qiskit finds the class by its entry point and passes it each block of three to five qubits. If the models find no
circuit, or none as cheap as Qiskit's own, the plugin returns Qiskit's.
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
from qiskit.quantum_info import PTM, Operator
from qiskit.transpiler.passes.synthesis.plugin import UnitarySynthesisPlugin

from quantum_diffusion.arguments import check_count, check_kind, check_number
from quantum_diffusion.circuits.backends.devices import Device, DeviceObjective, cost, device_of
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool, Matrix, have_angles
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.invariants import broken_invariants
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, circuits_from_ids, ids_from_circuits
from quantum_diffusion.errors import ConfigError, GateSetError, unknown_name
from quantum_diffusion.pretrained import DEFAULTS, PREFIX, WEIGHTS, WITH_ANGLES, model_folders

if TYPE_CHECKING:  # torch takes seconds, and most blocks need none of it
    from qiskit import QuantumCircuit
    from qiskit.dagcircuit import DAGCircuit

    from quantum_diffusion.pipeline.diffusion import DiffusionPipeline

logger = logging.getLogger(__name__)

MIN_QUBITS, MAX_QUBITS = 3, 5
"""Number of qubits of supported blocks. For fewer, Qiskit's own circuits have the minimum of two-qubit gates."""

_SHIPPED = tuple(PREFIX + name for name in (*DEFAULTS["compile"], *WITH_ANGLES["compile"]))

_TOLERANCE = 1e-8
"""Maximum error of a matrix entry; stricter than `EXACT`, as the circuit must replace the block exactly."""

_INTEGER_GATES = ("cx", "z", "x", "ccx", "swap", "y", "cz", "cswap")
"""Gates whose entries are integers, up to a global phase."""

_MOST_OF_CHEAP = 3
"""Maximum two-qubit gates of a gate that counts as cheap: swap does, ccx does not."""

_MOST_OF_SPARSE = 12
"""Maximum gates of a circuit that is known to leave some entries of a Pauli transfer matrix zero."""

_KEPT = 0.25
"""Part of the time that is kept for a search with angles, in case one without them finds nothing."""

_MOST_FOUND, _MOST_TRANSLATED, _MOST_TRIES = 8, 6, 512
"""Maximum circuits kept per search, circuits of these translated (the cheapest by estimate), and width of a beam."""


@dataclass(frozen=True, kw_only=True)
class PluginConfig:
    """The options in `unitary_synthesis_plugin_config`.

    Attributes:
        model: A folder, pretrained:NAME or hf://owner/name; None uses the shipped compilers. Those of gates with angles
            are used only for devices with rotations by any angle.
        max_seconds: Maximum seconds to search for each distinct block; most blocks use all of it, unless
            `stop_at_first`.
        stop_at_first: Whether to end each search at its first exact circuit instead of looking for cheaper ones.
        objective: The cost to minimize: "two_qubit_gates", "depth" or "gates"; the others break ties.
        max_qubits: Maximum number of qubits of a block, 3 to 5; larger ones are left to Qiskit.
        placed: Whether blocks are already placed on the device's qubits, so that gates must act on coupled pairs. In
            `transpile` they are not: it synthesizes blocks of three or more qubits before placing them.
        seed: Seed of the search.
    """

    model: str | None = None
    max_seconds: float = 1.0
    stop_at_first: bool = False
    objective: DeviceObjective = "two_qubit_gates"
    max_qubits: int = MAX_QUBITS
    placed: bool = False
    seed: int = 0

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> PluginConfig:
        """Validate a user's options.

        Raises:
            ConfigError: A key is unknown, or a value is out of range.
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
        check_kind(config.stop_at_first, bool, "stop_at_first")
        check_kind(config.placed, bool, "placed")
        check_count(config.seed, "seed")
        return config


class QuantumDiffusionSynthesis(UnitarySynthesisPlugin):  # type: ignore[misc] # Qiskit ships no types
    """The plugin class that Qiskit loads; see `docs/qiskit.md` for its options."""

    supports_basis_gates = True
    supports_coupling_map = True
    supports_target = True
    # Needed by Qiskit's own method, to which other blocks are passed.
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
        """Return a circuit for a unitary, including its global phase.

        Args:
            unitary: complex128 [D, D].
            **options: Options that Qiskit passes to plugins; `config` holds the user's.

        Returns:
            The cheaper of our circuit and Qiskit's own; None, which leaves the block unchanged, if any gate is allowed.

        Raises:
            ConfigError: The user's options are invalid.
            CheckpointError: The user's model cannot be loaded.
        """
        config = PluginConfig.read(options.pop("config", None))
        matrix = np.ascontiguousarray(unitary, dtype=np.complex128)
        coupling, qubits = options["coupling_map"]
        target, basis_gates = options["target"], options["basis_gates"]
        if target is None and not basis_gates:
            return None  # every gate is allowed, including the block itself; Qiskit's method does the same
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
    """Return Qiskit's own method by its entry point, as its module differs between versions."""
    (entry,) = entry_points(group="qiskit.unitary_synthesis", name="default")
    return entry.load()()


# --------------------------------------------------------------------------------------------------- circuits


@dataclass(frozen=True, order=True)
class _Rated:
    """A circuit and its costs.

    Attributes:
        cost: Cost on the device after Qiskit has placed, routed and optimized it (only optimized if already placed).
        plain: Cost after optimization, without placement or routing.
        circuit: The circuit in the basis.
    """

    cost: tuple[int, ...]
    plain: tuple[int, ...]
    circuit: QuantumCircuit = field(compare=False)


def _rated(native: QuantumCircuit, device: Device, config: PluginConfig, placed: bool) -> _Rated | None:
    """Return a circuit with its costs; None if Qiskit cannot compile it for the device."""
    plain = device.in_basis(native)
    final = plain if placed else device.routed(native)
    if plain is None or final is None:
        return None
    return _Rated(cost(final, config.objective), cost(plain, config.objective), native)


def _is_as_cheap(ours: _Rated, default: QuantumCircuit, device: Device, config: PluginConfig) -> bool:
    """Tell whether our circuit costs no more than Qiskit's own; without a coupling, also without placement."""
    theirs = _rated(default, device, config, placed=config.placed and device.pairs is None)
    return theirs is None or (ours.cost <= theirs.cost and (device.pairs is not None or ours.plain <= theirs.plain))


_Searches = list[tuple[Device, tuple[str, ...]]]
"""The couplings and gates of a model's searches, in order."""


@lru_cache(maxsize=256)
def _best_circuit(matrix: bytes, device: Device, config: PluginConfig) -> _Rated | None:
    """Return the cheapest exact circuit for a unitary on a device; None if none is found.

    The cache spares repeated searches for the same block, as in circuits with many equal layers.
    """
    values = np.frombuffer(matrix, dtype=np.complex128)
    unitary = values.reshape(math.isqrt(len(values)), -1)
    num_qubits = len(unitary).bit_length() - 1
    models = _models_for(config.model, device, num_qubits)
    plans = [(model, some) for model in models if (some := _searches(unitary, model, device, config.placed))]
    rated: list[_Rated] = []
    left = config.max_seconds
    for number, (model, searches) in enumerate(plans, start=1):
        kept = config.max_seconds * _KEPT if plans[number:] else 0.0
        rated, left = _searched(unitary, model, searches, device, config, left - kept)
        if rated:
            break
        left += kept
    if plans and not rated:
        logger.info("block of %d qubits: no circuit found in time", num_qubits)
    return min(rated, default=None)


def _searched(
    unitary: Matrix, model: _Model, searches: _Searches, device: Device, config: PluginConfig, left: float
) -> tuple[list[_Rated], float]:
    """Return the exact circuits that a model's searches find in the seconds left, and the seconds then left."""
    rated: list[_Rated | None] = []
    done: list[Device] = []
    for number, (where, gates) in enumerate(searches, start=1):
        if where in done:
            continue
        share = left / 2 if searches[number:] else left
        circuits, seconds = _found(unitary, model, gates, where, config, share)
        left -= min(seconds, share)  # a search may overrun
        done += [where] if circuits else []
        for circuit in _promising(circuits, where.costs(gates), config.placed):
            exact = (_with_phase(translated, unitary) for translated in where.translate(_polished(circuit, unitary)))
            rated += [_rated(native, device, config, config.placed) for native in exact if native is not None]
    return list(filter(None, rated)), left


def _searches(unitary: Matrix, model: _Model, device: Device, placed: bool) -> _Searches:
    """Return the couplings and gates to search with; empty if the unitary is out of the model's reach.

    A block that is placed later may use any pairs, or only coupled ones for a placement in order. If cheap gates may be
    enough, they are tried first: a model that may use ccx prefers it even where three cx are enough. With angles, cheap
    gates may always be enough, and trying them first costs more circuits than it improves.
    """
    searches = []
    for where in dict.fromkeys([device] if placed else [Device(device.basis), device]):
        costs = where.costs(model.gates)
        if any(costs.values()) and not _is_out_of_reach(unitary, tuple(costs), model.max_gates):
            cheap = tuple(gate for gate in costs if costs[gate] <= _MOST_OF_CHEAP)
            may_be_cheap = not have_angles(costs) and not broken_invariants(unitary, cheap)
            searches += [(where, gates) for gates in ([cheap] if may_be_cheap else []) + [tuple(costs)]]
    if not searches:
        logger.info("block of %d qubits: no circuit of %s", len(unitary).bit_length() - 1, list(model.gates))
    return list(dict.fromkeys(searches))


def _found(
    unitary: Matrix, model: _Model, gates: tuple[str, ...], device: Device, config: PluginConfig, max_seconds: float
) -> tuple[list[Circuit], float]:
    """Search for circuits of the gates; return them and the seconds used."""
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
            seed=config.seed,
            max_seconds=max_seconds,
            stop_at_first=config.stop_at_first,
            objective={**device.costs(gates), "gates": 0.01},
            edit=Edit(coupling=device.pairs),
        )
    except (ConfigError, GateSetError) as problem:  # provably impossible
        logger.info("no circuit of %s: %s", list(gates), problem)
        return [], 0.0
    if result.interrupted:  # pass Ctrl-C on, so that it ends Qiskit, too
        raise KeyboardInterrupt
    return [found.circuit for found in result.circuits], result.seconds


def _promising(circuits: Sequence[Circuit], costs: Mapping[str, int], placed: bool) -> list[Circuit]:
    """Return the circuits that are cheapest by estimate."""
    chosen = _cheapest(circuits, costs)
    if not placed and "swap" in costs:  # before placement, Qiskit can turn a swap into a relabelling of qubits
        chosen += _cheapest(circuits, {**costs, "swap": 0})
    return list(dict.fromkeys(chosen))


def _cheapest(circuits: Sequence[Circuit], costs: Mapping[str, int]) -> list[Circuit]:
    def estimate(circuit: Circuit) -> tuple[int, int]:
        return sum(costs[step.gate] for step in circuit.instructions), len(circuit)

    return sorted(circuits, key=estimate)[:_MOST_TRANSLATED]


def _polished(circuit: Circuit, unitary: Matrix) -> Circuit:
    """Return a circuit with angles exact to rounding errors: searches end before all entries reach `_TOLERANCE`."""
    if not have_angles(circuit.gate_counts):
        return circuit
    from quantum_diffusion.tasks.refinement import polished

    table = instruction_table(GatePool(circuit.gate_counts), circuit.num_qubits)
    ids = ids_from_circuits([circuit], table, len(circuit))
    angles = polished(ids, angles_of_circuits([circuit], table, len(circuit)), unitary[None], table)
    (result,) = circuits_from_ids(ids, table, angles=angles)
    return result


def _with_phase(native: QuantumCircuit, unitary: Matrix) -> QuantumCircuit | None:
    """Set a circuit's global phase to that of the unitary; None if the circuit is not exact."""
    made = Operator(native).data
    phase = float(np.angle(np.vdot(made, unitary)))
    if np.abs(made * np.exp(1j * phase) - unitary).max() > _TOLERANCE:
        return None
    native.global_phase += phase
    return native


# ---------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class _Model:
    """A model's folder and limits."""

    folder: Path
    gates: tuple[str, ...]
    num_qubits: int
    max_gates: int


def _models_for(name: str | None, device: Device, num_qubits: int) -> list[_Model]:
    """Return the smallest model with enough qubits, and then, if the device has rotations, the smallest with angles."""
    kinds = [model_folders(name, "compile")]
    if name is None:
        kinds.append(model_folders(None, "compile", with_angles=True))
    fitting = ([model for model in map(_described, kind) if num_qubits <= model.num_qubits] for kind in kinds)
    return [models[0] for models in fitting if models and (device.rotates or not have_angles(models[0].gates))]


@lru_cache(maxsize=16)
def _described(folder: Path) -> _Model:
    """Return a model's limits, without loading it if it is a shipped one."""
    if folder.parent == WEIGHTS:
        params = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["params"]
        return _Model(folder, tuple(params["gate_pool"]), params["num_qubits"], params["max_gates"])
    config = (pipeline := _pipeline(folder, os.getpid())).config
    return _Model(folder, pipeline.gate_pool.names, config.num_qubits, config.max_gates)


@lru_cache(maxsize=8)
def _pipeline(folder: Path, process: int) -> DiffusionPipeline:
    """Load a model, once per process: Qiskit compiles several circuits in parallel processes."""
    import torch

    from quantum_diffusion.search.sampling import load_answering

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # a forked process does not inherit the thread pool
    return load_answering("compile", folder, "cpu")


def _is_out_of_reach(unitary: Matrix, gates: Sequence[str], max_gates: int) -> bool:
    """Tell quickly, without a model, whether no circuit of the gates is the unitary; False proves nothing.

    For gates with angles it is no proof: a random unitary maps each Pauli operator to a sum of all others, and of
    12,000 random circuits of 12 gates none did.
    """
    if broken_invariants(unitary, gates):
        return True
    if have_angles(gates):
        return max_gates <= _MOST_OF_SPARSE and bool((np.abs(PTM(Operator(unitary)).data[1:, 1:]) > 1e-6).all())
    if not {*gates} <= {"h", *_INTEGER_GATES}:
        return False
    # Entries are integers, divided by sqrt(2) for each h; all other gates only permute and add them.
    largest = unitary.reshape(-1)[np.abs(unitary).argmax()]
    scaled = unitary * (np.conj(largest) / abs(largest))
    for _ in range(max_gates + 1):
        if np.abs(scaled - scaled.round()).max() < 1e-4:
            return False
        scaled = scaled * np.sqrt(2)
    return True
