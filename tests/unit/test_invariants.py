"""What gates have in common separates targets from all of their circuits, and never from one of them."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import InstructionTable, instruction_table
from quantum_diffusion.circuits.invariants import (
    INVARIANTS,
    ROTATIONS,
    Invariant,
    broken_by_state,
    broken_invariants,
    may_be_exact,
    may_entangle,
)
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import ids_from_circuits
from quantum_diffusion.search.unitaries import target_unitary
from tests.conftest import WITHOUT_ANGLES, read_gates

Matrix = NDArray[np.complex128]
LARGEST = 0.999e-6
"""The infidelity up to which a circuit still counts as its target."""


def whole_table(num_qubits: int) -> InstructionTable:
    return instruction_table(GatePool(name for name in GATES if GATES[name].num_qubits <= num_qubits), num_qubits)


def unitary(text: str, num_qubits: int) -> Matrix:
    table = whole_table(num_qubits)
    return unitaries(ids_from_circuits([Circuit(num_qubits, read_gates(text))], table, 40), table)[0]


def drawn(rng: np.random.Generator, number: int) -> tuple[list[str], Matrix]:
    """Draw gates, few of them every other time, and what a circuit of them does, up to a phase."""
    table = whole_table(int(rng.integers(1, 5)))
    fitting = len(table.pool)
    most = fitting if number % 2 else min(4, fitting)  # few gates have most in common
    chosen = rng.permutation(fitting)[: int(rng.integers(1, most + 1))]
    usable = np.flatnonzero(np.isin(table.gate_index, chosen))
    ids = rng.choice(usable, (1, int(rng.integers(0, 20)))).astype(np.int16)
    matrix = unitaries(ids, table)[0] * np.exp(2j * np.pi * rng.random())
    return [table.pool.names[index] for index in chosen], matrix


def disturbed(matrix: Matrix, rng: np.random.Generator) -> Matrix:
    """Return another unitary, as far away as a target may be from an exact circuit."""
    noise = rng.normal(size=(2, *matrix.shape))
    generator = noise[0] + noise[0].T + 1j * (noise[1] - noise[1].T)
    generator -= np.eye(len(matrix)) * np.trace(generator) / len(matrix)
    values, vectors = np.linalg.eigh(generator * np.sqrt(LARGEST * len(matrix)) / np.linalg.norm(generator))
    return (vectors * np.exp(1j * values)) @ vectors.conj().T @ matrix


def test_no_circuit_is_told_from_circuits_of_its_gates() -> None:
    rng = np.random.default_rng(0)
    for number in range(1500):
        gates, exact = drawn(rng, number)
        targets = exact, exact.astype(np.complex64), exact + rng.normal(scale=1e-7, size=exact.shape)
        target = (*targets, disturbed(exact, rng))[number % 4]
        assert broken_invariants(target, gates) == [], (gates, exact)


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.members)
def test_misfits_are_zero_for_members_and_hardly_more_than_the_infidelity_near_them(invariant: Invariant) -> None:
    table, rng = whole_table(3), np.random.default_rng(0)
    usable = [index for index, gate in enumerate(table.pool) if invariant.has(gate.name, 3)]
    ids = rng.choice(np.flatnonzero(np.isin(table.gate_index, usable)), (20, 12)).astype(np.int16)
    phases = np.concatenate([np.arange(8) / 8, rng.random(12)])  # among them those that decide between numbers
    for matrix in unitaries(ids, table) * np.exp(2j * np.pi * phases)[:, None, None]:
        assert abs(invariant.misfit(matrix)) < 1e-12
        assert invariant.misfit(disturbed(matrix, rng)) < 2e-6
        if invariant.misfit_of_state is not None:
            state = matrix[:, 0]
            off = rng.normal(size=(2, 8)).T @ [1, 1j]
            off -= state * np.vdot(state, off)
            near = np.sqrt(1 - LARGEST) * state + np.sqrt(LARGEST) * off / np.linalg.norm(off)
            assert abs(invariant.misfit_of_state(state)) < 1e-12
            assert invariant.misfit_of_state(near) < 2e-6


@pytest.mark.parametrize(
    ("text", "gates", "said"),
    [
        ("s 0", "h x z cx ccx swap cswap y", "real, up to a global phase"),
        ("cy 0 1", "h y z cx cz ccx cswap", "real, up to a global phase"),
        ("t 0", "h s x y z cx cy cz swap", "Clifford"),
        ("h 0; t 0; h 0", "h s x y z cx cy cz swap", "Clifford"),  # takes x to x, but z to no product of x, y and z
        ("ccx 0 1 2", "h x cx cz swap", "Clifford"),
        ("h 2; t 2; h 2", "h s x y z cx cy cz swap", "Clifford"),
        ("x 0", "z s t cz", "diagonal"),
        ("h 0", "x y z s t cx cz swap ccx cswap", "permutations of the basis states, up to phases"),
        ("z 0", "x cx ccx swap cswap", "permutations of the basis states without phases"),
        ("ccx 0 1 2", "x y z s t cx cy cz swap", "sums (XOR) of input bits"),
        ("swap 0 1", "x y z s t cz", "flips of bits, up to phases"),
        ("cx 0 1", "x y z s t cz swap", "flips and swaps of bits, up to phases"),
        ("cx 2 0", "x y z s t cz swap", "flips and swaps of bits, up to phases"),
        ("x 1", "cx cy cz swap ccx cswap s t", "such that |0...0> is unchanged"),
        ("cx 0 1", "z s t cz swap cswap", "such that the number of qubits in 1 is unchanged"),
        ("cx 0 1", "h x y z s t swap", "products of gates on single qubits, up to swaps"),
        ("cz 0 1", "x y z cx swap", "permutations with signs that are sums (XOR) of bits"),
        ("t 0", "x y z s cx cz swap ccx cswap", "permutations with phases that are multiples of 90 degrees"),
    ],
)
def test_what_gates_have_in_common(text: str, gates: str, said: str) -> None:
    target = np.exp(0.4j) * unitary(text, 3)
    assert any(said in invariant.members for invariant in broken_invariants(target, gates.split()))


@pytest.mark.parametrize("gates", ["x cx ccx", "h x cx ccx swap", "h cz ccx cswap"])
def test_the_parity_of_a_permutation(gates: str) -> None:
    """Of four qubits all these gates are even; x on one qubit with three controls, which is odd, needs a fifth."""
    controlled = target_unitary("toffoli:4", 4)
    assert [invariant.members for invariant in broken_invariants(controlled, gates.split())] == [
        "real with determinant 1, up to a global phase"
    ]
    assert broken_invariants(np.kron(np.eye(2), controlled), gates.split()) == []
    assert broken_invariants(target_unitary("toffoli:3", 3), gates.split()) == []


def test_phases_of_small_steps() -> None:
    phases = np.ones(8, dtype=np.complex128)
    for angle, gates, is_told in (
        (0.25, "t cx", True),
        (0.25, "t ccx", False),
        (0.5, "t cx", False),
        (0.1, "t ccx", True),
    ):
        phases[-1] = np.exp(2j * np.pi * angle)  # of the state in which all three qubits are 1
        assert bool(broken_invariants(np.diag(phases), gates.split())) == is_told


def test_what_comes_near_everything_is_never_told() -> None:
    for gates in ("h t cx", "h s ccx", "h t cswap"):
        for target in ("qft:3", "toffoli:3", "ghz:3"):
            assert broken_invariants(target_unitary(target, 3), gates.split()) == []


@pytest.mark.parametrize("gates", ["x cx", "x cx z", "x cx cz swap", "x s cx", "s cx"])
def test_nothing_out_of_reach_is_missed_in_a_small_group(gates: str) -> None:
    everything, reached = _group(["x", "s", "cx"]), _group(gates.split())
    for key in list(everything)[::5]:
        assert (key in reached) == (not broken_invariants(everything[key], gates.split()))


def _group(gates: list[str]) -> dict[bytes, Matrix]:
    """Return all unitaries of two qubits that some gates make, up to global phases."""
    table = instruction_table(GatePool(gates), 2)
    steps = unitaries(np.arange(1, len(table) + 1, dtype=np.int16)[:, None], table)
    found: dict[bytes, Matrix] = {}
    new = [np.eye(4, dtype=np.complex128)]
    while new:
        found |= {_key(one): one for one in new}
        new = [product for one in new for product in steps @ one if _key(product) not in found]
        new = list({_key(one): one for one in new}.values())
    return found


def _key(matrix: Matrix) -> bytes:
    first = matrix[np.abs(matrix) > 0.1][0]
    return (np.rint(4 * matrix * abs(first) / first) + 0.0).tobytes()


def test_gates_that_entangle_nothing() -> None:
    for size in (1, 2, 3):
        for gates in itertools.combinations(["h", "x", "s", "swap", "cx", "ccx", "cz"], size):
            table = instruction_table(GatePool(gates), 3)
            ids = np.random.default_rng(0).integers(1, len(table) + 1, (300, 6)).astype(np.int16)
            entangles = bool((schmidt_rank_vectors(ids, table) == 2).any())
            assert may_entangle(gates, 3) >= entangles, gates
            if "h" in gates and "cx" in gates:
                assert entangles
    assert not may_entangle(["h", "s", "swap"], 3)
    assert not may_entangle(["x", "cx", "ccx"], 3)


def test_every_gate_is_in_a_group_of_its_own_kind() -> None:
    for invariant in INVARIANTS:
        members = [name for name, gate in GATES.items() if invariant.has(name, 4)]
        assert all(GATES[name].inverse in members for name in members)
        assert 0 < len(members) < len(GATES), "else the row says nothing"


def test_no_state_is_told_from_those_that_its_gates_make() -> None:
    rng = np.random.default_rng(1)
    for number in range(1500):
        gates, exact = drawn(rng, number)
        state = exact[:, 0]
        noise = rng.normal(size=(2, len(state)))
        noise = noise[0] + 1j * noise[1]
        noise -= state * np.vdot(state, noise)
        off = np.sqrt(LARGEST) * noise / np.linalg.norm(noise)  # as far away as a target may be
        target = (state, state.astype(np.complex64), np.sqrt(1 - LARGEST) * state + off)[number % 3]
        assert broken_by_state(target, gates) == [], (gates, exact)


@pytest.mark.parametrize(
    ("text", "gates", "states"),
    [
        ("h 0; s 0; cx 0 1", ["h", "cx", "x", "z", "ccx", "swap"], "real states"),
        ("h 0; cx 0 1", ["h", "s", "swap"], "products of single qubits"),
        ("h 0; cx 0 1", ["x", "cx", "t", "swap"], "basis states"),
        ("x 0", ["z", "cx", "swap"], "|0...0>"),
    ],
)
def test_states_that_gates_cannot_make_are_told(text: str, gates: list[str], states: str) -> None:
    state = unitary(text, 3)[:, 0]
    assert states in {group.states for group in broken_by_state(np.exp(0.4j) * state, gates)}
    assert broken_by_state(state, ["h", "s", "x", "cx"]) == []


@pytest.mark.parametrize("left_out", [("t", "tdg"), ()])
def test_what_circuits_are_may_always_be_exact(left_out: tuple[str, ...]) -> None:
    rng, names = np.random.default_rng(0), [name for name in GATES if name not in left_out]
    for _ in range(300):
        table = instruction_table(GatePool(names), int(rng.integers(3, 6)))
        num_gates = int(rng.integers(0, 25))
        ids = rng.integers(1, len(table.gate_index), (1, num_gates)).astype(np.int16)
        matrix = unitaries(ids, table)[0] * np.exp(2j * np.pi * rng.random())
        assert may_be_exact(matrix, names, num_gates)
        assert may_be_exact(matrix[:, 0], names, num_gates), "the state that it makes"
        assert may_be_exact(matrix.astype(np.complex64), names, num_gates), "rounded"


def test_thirds_and_random_matrices_are_never_exact() -> None:
    w = np.array([0, 1, 1, 0, 1, 0, 0, 0]) / np.sqrt(3)
    assert not may_be_exact(w, ["h", "cx", "s"], 20)
    assert not may_be_exact(w, ["h", "cx", "t"], 6)
    assert may_be_exact(w, ["h", "cx", "t"], 20), "with so many roots of two, a sum comes near a third"
    assert not may_be_exact(w, [name for name in WITHOUT_ANGLES if name not in ("t", "tdg")], 20)
    rng = np.random.default_rng(0)
    for _ in range(200):
        matrix, _ = np.linalg.qr(rng.normal(size=(8, 8)))
        assert not may_be_exact(matrix, ["h", "cx", "ccx"], 30)
        assert not may_be_exact(matrix, ["h", "cx", "t"], 30)


def state_of(share: float) -> Matrix:
    """A state of one qubit that is in |1> with this probability."""
    return np.array([np.sqrt(1 - share), np.sqrt(share)], dtype=np.complex128)


def test_shares_tell_which_gates_and_how_many_of_them_a_state_takes() -> None:
    root = np.sqrt(2)
    half, eighth = state_of(1 / 2), state_of((2 - root) / 4)  # as h, and as h, t and h prepare them
    assert [may_be_exact(half, ["h", "cx"], most) for most in (0, 1, 20)] == [False, True, True]
    assert [may_be_exact(eighth, ["h", "t"], most) for most in (0, 1, 2, 3)] == [False, False, True, True]
    assert not may_be_exact(eighth, ["h", "s", "cx"], 20)
    many = state_of((64 - 45 * root) / 128)  # the most roots that this power of two allows
    assert [may_be_exact(many, ["h", "t"], most) for most in (6, 7)] == [False, True]
    outside = state_of(root - 1)  # with the sign of the root flipped it is no probability
    assert not may_be_exact(outside, ["h", "t"], 6)
    assert may_be_exact(outside, ["h", "t", "rx"], 0), "nothing is known of circuits of other gates"


def test_targets_count_up_to_their_norm() -> None:
    for scale in (0.99, 1.01):
        for text in ("h 0; s 0; cx 0 1", "h 0; t 0"):
            target = unitary(text, 2)
            for gates in (["h", "cx"], ["t", "cx"], ["h", "s", "swap"]):
                assert broken_invariants(scale * target, gates) == broken_invariants(target, gates)
                assert broken_by_state(scale * target[:, 0], gates) == broken_by_state(target[:, 0], gates)


def test_a_gate_may_be_in_a_group_among_other_qubits_alone() -> None:
    """An x has determinant -1 where it is alone, and 1 where there is another qubit."""
    complex_state = unitary("h 0; s 0", 2)[:, 0]
    for state, is_rotation in ((complex_state[:2], False), (complex_state, True)):
        assert (ROTATIONS in broken_by_state(state, ["x"])) == is_rotation
