"""Labels and tokens of every gate against genQC 0.2.5's own computation.

genQC is a test extra, so the module is skipped where it is missing.
"""

import contextlib
import warnings

import numpy as np
import pytest
import torch

from quantum_diffusion.circuits.circuit import Instruction
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.labels import schmidt_rank_vectors
from quantum_diffusion.circuits.prompts import gates_prompt, srv_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import VALID, circuits_from_ids, decode_tokens, encode_ids
from tests.conftest import WITHOUT_ANGLES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("genQC.platform.circuits_generation")
    from genQC.platform import circuits_generation
    from genQC.platform.backends.circuits_qiskit import CircuitsQiskitBackend, instruction_name_to_qiskit_gate
    from genQC.platform.circuits_instructions import CircuitInstructions
    from genQC.platform.tokenizer.circuits_tokenizer import CircuitTokenizer


def buildable() -> tuple[str, ...]:
    """Our gates that genQC can simulate: not sdg, tdg and cswap (test_genqc_faults)."""
    names = []
    for name in WITHOUT_ANGLES:
        with contextlib.suppress(AttributeError):
            instruction_name_to_qiskit_gate(name)
            names.append(name)
    return tuple(names)


POOL = buildable()


def tokenizer(names: tuple[str, ...]) -> CircuitTokenizer:
    return CircuitTokenizer({name: number for number, name in enumerate(names, start=1)})


@pytest.mark.parametrize(
    ("num_qubits", "names"), [(1, ("h", "t", "y")), (2, ("h", "cx")), (3, POOL), (3, ("h", "cx")), (4, POOL)]
)
def test_schmidt_rank_vectors_and_unitaries_are_genqc_s(num_qubits: int, names: tuple[str, ...]) -> None:
    """50 random circuits each: the labels that genQC gives to the circuits it reads from our tokens."""
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(num_qubits), table, 50, 0, 10)
    ranks, matrices = schmidt_rank_vectors(ids, table), unitaries(ids, table)
    backend, theirs = CircuitsQiskitBackend(), tokenizer(names)
    for cells, rank, matrix in zip(encode_ids(ids, table), ranks, matrices, strict=True):
        circuit = backend.genqc_to_backend(theirs.decode(torch.from_numpy(cells)), place_barriers=False)
        assert backend.schmidt_rank_vector(circuit) == rank.tolist()
        np.testing.assert_allclose(backend.get_unitary(circuit), matrix, atol=1e-10)
    assert num_qubits == 1 or len(np.unique(ranks, axis=0)) > 1


@pytest.mark.parametrize("num_qubits", [2, 3])
def test_circuits_that_genqc_draws_have_the_labels_and_prompts_it_gives(num_qubits: int) -> None:
    kind = circuits_generation.CircuitConditionType
    backend, pool = CircuitsQiskitBackend(), ("h", "cx", "z", "x", "swap", "t")
    table = instruction_table(GatePool(pool), num_qubits)
    rng = np.random.default_rng(7)
    for number in range(20):
        condition = kind.SRV if number % 2 else kind.UNITARY
        _, label, tokens, _ = circuits_generation.get_rnd_encoded_circuit(
            backend, tokenizer(pool), condition, num_qubits, None, 1, 8, rng, optimized=False
        )
        report = decode_tokens(tokens.numpy()[None], table.pool)
        assert report.reasons == (VALID,)
        if condition is kind.SRV:
            (found,) = schmidt_rank_vectors(report.ids, table)
            assert srv_prompt(found) == f"Generate SRV: {label.tolist()}"
        else:
            (matrix,) = unitaries(report.ids, table)
            np.testing.assert_allclose(matrix, torch.complex(*label).numpy(), atol=1e-10)


def test_prompts_for_unitaries_are_genqc_s() -> None:
    kind = circuits_generation.CircuitConditionType.UNITARY
    pool = ("h", "cx", "t")
    _, prompts, *_ = circuits_generation.get_rnd_encoded_circuits(
        CircuitsQiskitBackend(), tokenizer(pool), kind, 30, 2, 1, 4, optimized=False, silent=True
    )
    subsets = [[name for name in pool if f"'{name}'" in prompt] for prompt in prompts]
    assert prompts.tolist() == [gates_prompt(names, GatePool(pool)) for names in subsets]
    assert len(set(prompts.tolist())) > 3


@pytest.mark.parametrize("name", WITHOUT_ANGLES)
def test_every_placement_of_every_gate_is_written_and_read_alike(name: str) -> None:
    """Ours to genQC's instructions and tokens, and genQC's tokens to ours, in a pool of all gates."""
    names = WITHOUT_ANGLES
    table = instruction_table(GatePool(names), 4)
    placements = [number for number, step in enumerate(table.instructions, start=1) if step.gate == name]
    assert placements
    ids = np.array(placements, dtype=np.int16)[:, None]
    cells, theirs = encode_ids(ids, table), tokenizer(names)
    for number, own, circuit in zip(placements, cells, circuits_from_ids(ids, table), strict=True):
        (step,) = circuit.instructions
        written = CircuitInstructions(tensor_shape=own.shape)
        written.add_instruction(step.gate, step.controls, step.targets, [])
        tokens = theirs.encode(written, return_params_tensor=False)
        np.testing.assert_array_equal(tokens.numpy(), own)
        (read,) = theirs.decode(torch.from_numpy(own)).data
        assert Instruction(read.name, tuple(read.control_nodes), tuple(read.target_nodes)) == step
        report = decode_tokens(tokens.numpy()[None], table.pool)
        assert (report.reasons, report.ids.tolist()) == ((VALID,), [[number]])
