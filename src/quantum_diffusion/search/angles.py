"""Finds the angles of a given circuit: reads it and its target, refines its angles, and writes the result.

The command `refine` uses it; the refinement itself is in `tasks.refinement`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantum_diffusion.arguments import PRESETS_HINT, check_count, check_kind
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GatePool, Matrix
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.matrices import EXACT_ANGLES
from quantum_diffusion.circuits.simulate import statevectors
from quantum_diffusion.circuits.tokenizer import angles_of_circuits, circuits_from_ids, ids_from_circuits
from quantum_diffusion.config.schema import RefineConfig
from quantum_diffusion.device import one_thread, select_device
from quantum_diffusion.errors import (
    ConfigError,
    QuantumDiffusionError,
    TooManyQubitsError,
    counted,
    quoted_path,
)
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.compiling import described, title
from quantum_diffusion.search.files import read_target_file
from quantum_diffusion.search.found import CompiledCircuit
from quantum_diffusion.search.hamiltonians import PauliSum
from quantum_diffusion.search.refining import Refined, shortened, snapped
from quantum_diffusion.search.saving import check_save_folder, save_circuits
from quantum_diffusion.search.states import target_state
from quantum_diffusion.search.unitaries import target_unitary
from quantum_diffusion.seeding import numpy_generator
from quantum_diffusion.tasks.energy import energy_in_words
from quantum_diffusion.tasks.refinement import lowest_energy, refine
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.tasks.state import StateTask
from quantum_diffusion.tasks.targets import TargetTask
from quantum_diffusion.tasks.unitary import UnitaryTask

_ITERATIONS = 200


@dataclass(frozen=True)
class LowestEnergy:
    """The result of minimising the energy of a circuit's state.

    Attributes:
        circuit: The circuit with the best angles.
        energy: The energy of its state, simulated in float64 from the final form.
        lowest: The lowest possible energy, from the eigenvalues of the Hamiltonian.
        highest: The highest possible energy.
        tolerance: Accepted `excess`.
        seconds: Duration in seconds.
    """

    circuit: Circuit
    energy: float
    lowest: float
    highest: float
    tolerance: float
    seconds: float

    @property
    def excess(self) -> float:
        """How far the energy is above the lowest possible, as a share of the range of all energies."""
        return (self.energy - self.lowest) / (self.highest - self.lowest or 1.0)

    @property
    def is_lowest(self) -> bool:
        """Whether the energy is the lowest possible but for the tolerance."""
        return self.excess < max(EXACT_ANGLES, self.tolerance)

    def __str__(self) -> str:
        return (
            f"{energy_in_words(self.energy, self.energy - self.lowest)} "
            f"({counted(len(self.circuit), 'gate')}; {self.seconds:.1f} s)\n{self.circuit}"
        )


def refine_file(config: RefineConfig) -> Compilation | LowestEnergy:
    """Find the angles of the circuit in a file; see `refine_circuit` and `minimize_energy`.

    Raises:
        ConfigError: A file or the target cannot be read, or they do not fit each other.
        GateSetError: The circuit has gates that are not known.
        CheckpointError: `save_folder` is in use.
    """
    circuit = check_refinement(config)
    if config.energy is not None:
        return minimize_energy(
            circuit, config.energy, starts=config.starts, tolerance=config.tolerance, seed=config.seed
        )
    return refine_angles(
        circuit,
        config.target,
        config.state,
        starts=config.starts,
        tolerance=config.tolerance,
        shorten=config.shorten,
        round_angles=config.round_angles,
        seed=config.seed,
        device=config.device,
    )


def check_refinement(config: RefineConfig) -> Circuit:
    """Refuse what `refine_file` would refuse, and return the circuit."""
    check_kind(config, RefineConfig, "config", PRESETS_HINT)
    check_save_folder(config.save_folder, "refine.save_folder")
    try:
        read = read_target_file(Path(config.circuit))
        if isinstance(read, np.ndarray):
            raise ConfigError("it holds a matrix: give an OpenQASM program")
        circuit = Circuit.from_qiskit(read)
    except QuantumDiffusionError as problem:
        raise type(problem)(f"refine.circuit: {quoted_path(config.circuit)}: {problem}") from problem
    _check_angles(circuit)
    if config.energy is None:
        _read_target(circuit, config.target, config.state, config.seed)
    else:
        _read_hamiltonian(circuit, config.energy)
    return circuit


def _check_angles(circuit: Circuit) -> None:
    if not any(step.angles for step in circuit.instructions):
        raise ConfigError("the circuit has no gates with angles: give one with e.g. rz, ry or cp")


def _read_target(circuit: Circuit, target: object, state: object, seed: int) -> tuple[str, Matrix]:
    """Return the name of the task and the target of a circuit."""
    if (target is None) == (state is None):
        raise ConfigError("give target or state, and not both")
    task, read, given = (
        (UnitaryTask.name, target_unitary, target) if state is None else (StateTask.name, target_state, state)
    )
    try:
        return task, read(given, circuit.num_qubits, gates=[*circuit.gate_counts], seed=seed)
    except TooManyQubitsError:
        raise ConfigError(
            f"the target has more qubits than the circuit, {circuit.num_qubits}: give a smaller target, or a circuit "
            "of as many"
        ) from None


def _read_hamiltonian(circuit: Circuit, text: str) -> PauliSum:
    total = PauliSum.parse(text)
    if total.num_qubits != circuit.num_qubits:
        raise ConfigError(
            f"the Hamiltonian acts on {counted(total.num_qubits, 'qubit')} and the circuit has {circuit.num_qubits}: "
            "give one letter for every qubit of the circuit"
        )
    return total


def refine_angles(circuit: Circuit, target: object, state: object, *, seed: int = 0, **settings: Any) -> Compilation:
    """Find the angles of a circuit for a unitary or a state, given by name, file or array; see `refine_circuit`.

    Raises:
        ConfigError: Neither or both are given, one cannot be read or does not fit the circuit.
    """
    check_kind(circuit, Circuit, "circuit")
    task, wanted = _read_target(circuit, target, state, seed)
    return refine_circuit(circuit, wanted, task=task, seed=seed, **settings)


@one_thread()
def refine_circuit(
    circuit: Circuit,
    target: Matrix,
    *,
    task: str = UnitaryTask.name,
    starts: int = 32,
    tolerance: float = 0.0,
    shorten: bool = False,
    round_angles: bool = True,
    seed: int = 0,
    device: str = "auto",
) -> Compilation:
    """Find the angles with which a circuit implements a target best, up to a global phase.

    Args:
        circuit: Its gates stay, unless `shorten`; its angles are where the first search starts.
        target: Unitary, complex [d, d], or state, complex [d], with d = 2**q; on fewer qubits than the circuit has, the
            others must be left alone.
        task: "UNITARY" or "STATE".
        starts: Number of searches; all but the first start from random angles.
        tolerance: Accepted infidelity, in [0, 1); 0 requires less than `EXACT_ANGLES`.
        shorten: Whether to delete gates that a good enough circuit can do without.
        round_angles: Whether to round the angles of a good enough circuit; see `snapped`.
        seed: Seed of the random angles.
        device: Where to compute, as `refine.device`.

    Returns:
        The best circuit, as the only one of `circuits` if it is good enough, and as `best`. Its infidelity is simulated
        in float64 from its final form.

    Raises:
        ConfigError: The circuit has no angles, the target does not fit it, or a number is out of range.
    """
    started = time.perf_counter()
    check_kind(shorten, bool, "shorten")
    check_kind(round_angles, bool, "round_angles")
    chosen = TASKS[task]
    assert isinstance(chosen, TargetTask)
    every, tried, table = _starts(circuit, starts, seed)
    chosen.check_target(target, circuit.num_qubits)
    columns = np.asarray(target, dtype=np.complex128).reshape(len(target), -1)
    wanted = chosen.pad(columns, circuit.num_qubits)[None]
    accepted = max(EXACT_ANGLES, tolerance)
    found, reached = refine(
        every,
        tried,
        wanted,
        table,
        iterations=_ITERATIONS,
        device=select_device(device),
    )
    best = Refined(every, found, reached).take(np.array([int(reached.argmin())]))
    if best.infidelities[0] < accepted:
        best = shortened(best, wanted, table, accepted) if shorten else best
        best = snapped(best, wanted, table, accepted, merge=shorten) if round_angles else best
    (final,) = circuits_from_ids(best.ids, table, angles=best.angles)
    exact = angles_of_circuits([final], table, len(final))
    distance = chosen.distances(ids_from_circuits([final], table, len(final)), wanted, table, exact)
    result = CompiledCircuit(final, float(distance[0]), exact_below=EXACT_ANGLES)
    is_good = result.is_exact or result.infidelity <= tolerance
    return Compilation(
        circuits=(result,) if is_good else (),
        best=result,
        gates=table.pool.names,
        num_sampled=starts,
        num_exact=int((reached < EXACT_ANGLES).sum()),
        num_invalid=0,
        num_too_long=0,
        search="angles",
        seconds=time.perf_counter() - started,
        tolerance=tolerance,
    )


def _starts(circuit: Circuit, count: int, seed: int) -> tuple[Ids, Angles, InstructionTable]:
    """Return a circuit as ids int16 [count, T], its own angles and random ones [count, T, A], and the instructions.

    Raises:
        ConfigError: The circuit has no angles, or the count is not positive.
    """
    check_kind(circuit, Circuit, "circuit")
    check_count(count, "starts", 1)
    _check_angles(circuit)
    table = instruction_table(GatePool(circuit.gate_counts), circuit.num_qubits)
    ids, own = ids_from_circuits([circuit], table, len(circuit)), angles_of_circuits([circuit], table, len(circuit))
    every = np.repeat(ids, count, axis=0)
    others = table.random_angles(every[1:], numpy_generator(seed, "angles"))
    return every, np.concatenate([own, others]), table


@one_thread()
def minimize_energy(
    circuit: Circuit, hamiltonian: str, *, starts: int = 32, tolerance: float = 0.0, seed: int = 0
) -> LowestEnergy:
    """Find the angles with which a circuit's state has the lowest energy.

    Args:
        circuit: Its gates stay; its angles are where the first search starts.
        hamiltonian: A sum of Pauli operators on the circuit's qubits, such as "0.5*XXI-0.3*IZZ".
        starts: Number of searches; all but the first start from random angles.
        tolerance: Accepted distance from the lowest possible energy; see `LowestEnergy.excess`.
        seed: Seed of the random angles.

    Raises:
        ConfigError: The Hamiltonian cannot be read or has other qubits, the circuit has no angles, or a number is out
            of range.
    """
    started = time.perf_counter()
    ids, tried, table = _starts(circuit, starts, seed)
    matrix = _read_hamiltonian(circuit, hamiltonian).matrix()
    found, energies = lowest_energy(ids, tried, matrix, table)
    best = int(energies.argmin())
    (final,) = circuits_from_ids(ids[best : best + 1], table, angles=found[best : best + 1])
    exact = angles_of_circuits([final], table, len(final))
    state = statevectors(ids[best : best + 1], table, exact)[0]
    levels = np.linalg.eigvalsh(matrix)
    return LowestEnergy(
        circuit=final,
        energy=float((state.conj() @ matrix @ state).real),
        lowest=float(levels[0]),
        highest=float(levels[-1]),
        tolerance=tolerance,
        seconds=time.perf_counter() - started,
    )


def write_refined(result: Compilation | LowestEnergy, config: RefineConfig) -> None:
    """Write the circuit as `refined.qasm`, a picture and a summary into the new folder `save_folder`.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    assert config.save_folder is not None
    if isinstance(result, LowestEnergy):
        circuit, words = result.circuit, f"energy {result.energy:.8g}"
        row: dict[str, Any] = {"energy": result.energy, "lowest": result.lowest, "num_gates": len(circuit)}
    else:
        assert result.best is not None
        circuit, words, row = result.best.circuit, title(result.best), described(result.best)
    save_circuits(
        config.save_folder,
        {"refined.qasm": circuit},
        asked=repr(config.target or config.state or config.energy),
        titles=[words],
        rows=[row],
        summary={"seconds": result.seconds, "refine": config.model_dump(mode="json")},
        language=config.format,
    )


def outcome_in_words(result: Compilation) -> str:
    """Say how near the circuit comes to its target, in one line."""
    assert result.best is not None
    of = f"{counted(result.num_exact, 'start')} of {result.num_sampled} led to an exact circuit"
    return f"{title(result.best)}; {of} ({result.seconds:.1f} s)"
