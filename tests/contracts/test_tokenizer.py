"""Cell tokens: exact round trips, genQC's convention, and reports, not exceptions, for what a model writes.

genQC's own tokenizer is the oracle of the convention; hypothesis searches for arrays that break decoding.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import Ids, InstructionTable, instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import (
    VALID,
    circuits_from_ids,
    decode_tokens,
    encode_ids,
    ids_from_circuits,
)
from quantum_diffusion.errors import GateSetError
from tests.conftest import WITHOUT_ANGLES

POOLS = {
    "h_cx": ("h", "cx"),
    "one_gate": ("swap",),
    "symmetric": ("cz", "swap", "t"),
    "paper_unitary": ("h", "cx", "z", "x", "ccx", "swap"),
    "full": WITHOUT_ANGLES,
    "full_reversed": WITHOUT_ANGLES[::-1],
}
REASONS = {
    VALID,
    "token out of range",
    "padding inside the circuit",
    "two gates in one time step",
    "controls without a target",
    "wrong number of controls or targets",
}


def width(names: tuple[str, ...]) -> int:
    return max(GATES[name].num_qubits for name in names)


CASES = [
    pytest.param(names, num_qubits, id=f"{label}-{num_qubits}")
    for label, names in POOLS.items()
    for num_qubits in (2, 3, 5, 8)
    if width(names) <= num_qubits
]


# ---- round trips


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_every_instruction_has_its_own_column(names: tuple[str, ...], num_qubits: int) -> None:
    table = instruction_table(GatePool(names), num_qubits)
    every = np.arange(len(table) + 1, dtype=np.int16)[:, None]
    tokens = encode_ids(every, table)
    assert (tokens.dtype, tokens.shape) == (np.int8, (len(table) + 1, num_qubits, 1))
    assert len(np.unique(tokens, axis=0)) == len(table) + 1
    report = decode_tokens(tokens, table.pool)
    assert report.counts == {VALID: len(every)}
    np.testing.assert_array_equal(report.ids, every)
    np.testing.assert_array_equal(ids_from_circuits(circuits_from_ids(every, table), table, 1), every)


@st.composite
def id_arrays(draw: st.DrawFn) -> tuple[Ids, InstructionTable]:
    names = draw(st.sampled_from(list(POOLS.values())))
    num_qubits = draw(st.integers(width(names), 6))
    table = instruction_table(GatePool(names), num_qubits)
    shape = draw(st.tuples(st.integers(0, 4), st.integers(0, 9)))
    return draw(hnp.arrays(np.int16, shape, elements=st.integers(0, len(table)))), table


@settings(max_examples=200, deadline=None)
@given(id_arrays())
def test_ids_tokens_ids_circuits_ids(case: tuple[Ids, InstructionTable]) -> None:
    ids, table = case
    tokens = encode_ids(ids, table)
    report = decode_tokens(tokens, table.pool)
    assert report.ids.dtype == np.int16
    assert (report.valid.tolist(), report.reasons) == ([True] * len(ids), (VALID,) * len(ids))
    np.testing.assert_array_equal(report.ids, ids)

    circuits = circuits_from_ids(ids, table)
    again = ids_from_circuits(circuits, table, ids.shape[1])
    assert circuits_from_ids(again, table) == circuits
    for row, back in zip(ids.tolist(), again.tolist(), strict=True):
        gates = [i for i in row if i]
        assert back == gates + [0] * (len(row) - len(gates))  # empty steps are no part of a circuit


@settings(max_examples=200, deadline=None)
@given(id_arrays(), st.data())
def test_padding_cells_are_exactly_those_outside(case: tuple[Ids, InstructionTable], data: st.DataObject) -> None:
    """Mixed sizes: circuit n uses sizes[n] qubits and time steps of a larger array."""
    ids, table = case
    num_circuits, num_steps = ids.shape
    smallest = width(table.pool.names)
    sizes = np.array(
        [
            [data.draw(st.integers(smallest, table.num_qubits)), data.draw(st.integers(0, num_steps))]
            for _ in range(num_circuits)
        ],
        dtype=np.int16,
    ).reshape(num_circuits, 2)
    for row, (qubits, steps) in enumerate(sizes):  # keep what fits the sizes
        fits = ~table.uses_qubit[ids[row], qubits:].any(axis=1)
        ids[row] = np.where(fits & (np.arange(num_steps) < steps), ids[row], 0)
    extra = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 3)))
    shape = (table.num_qubits + extra[0], num_steps + extra[1])
    tokens = encode_ids(ids, table, sizes, shape)
    assert tokens.shape == (num_circuits, *shape)

    for row, (qubits, steps) in enumerate(sizes):
        inside = np.zeros(shape, dtype=bool)
        inside[:qubits, :steps] = True
        np.testing.assert_array_equal(np.abs(tokens[row]) == table.pool.padding_token, ~inside)

    wide = instruction_table(table.pool, shape[0])
    report = decode_tokens(tokens, table.pool)
    assert report.valid.all()
    assert circuits_from_ids(report.ids, wide, sizes[:, 0].tolist()) == circuits_from_ids(
        ids, table, sizes[:, 0].tolist()
    )


def test_without_sizes_only_the_added_cells_are_padding() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 2)
    tokens = encode_ids(np.array([[1, 0]], dtype=np.int16), table, shape=(3, 4))
    np.testing.assert_array_equal(tokens[0], [[1, 0, 3, 3], [0, 0, 3, 3], [3, 3, 3, 3]])


# ---- the convention


def test_convention() -> None:
    pool = GatePool(["h", "cx", "swap", "ccx", "cz", "cswap"])
    circuit = Circuit(
        3,
        (
            Instruction("h", (), (2,)),
            Instruction("cx", (2,), (0,)),
            Instruction("swap", (), (0, 2)),
            Instruction("ccx", (0, 2), (1,)),
            Instruction("cz", (1,), (0,)),
            Instruction("cswap", (1,), (0, 2)),
        ),
    )
    table = instruction_table(pool, 3)
    tokens = encode_ids(ids_from_circuits([circuit], table, 7), table, np.array([[3, 6]], dtype=np.int16))
    np.testing.assert_array_equal(
        tokens[0],
        [
            [0, 2, 3, -4, 5, 6, 7],
            [0, 0, 0, 4, -5, -6, 7],
            [1, -2, 3, -4, 0, 6, 7],
        ],
    )
    assert pool.padding_token == len(pool) + 1 == 7
    assert pool.vocabulary_size == len(pool) + 2 == 8


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_agrees_with_genqc(names: tuple[str, ...], num_qubits: int) -> None:
    genqc = pytest.importorskip("genQC.platform.tokenizer.circuits_tokenizer")
    from genQC.platform.circuits_instructions import CircuitInstructions

    tokenizer = genqc.CircuitTokenizer({name: number for number, name in enumerate(names, start=1)})
    table = instruction_table(GatePool(names), num_qubits)
    ids = random_ids(np.random.default_rng(0), table, 25, 0, 10)
    tokens = encode_ids(ids, table)
    for circuit, cells in zip(circuits_from_ids(ids, table), tokens, strict=True):
        theirs = CircuitInstructions(tensor_shape=cells.shape)
        for step in circuit.instructions:
            theirs.add_instruction(step.gate, step.controls, step.targets, [])
        encoded = tokenizer.encode(theirs, return_params_tensor=False)
        np.testing.assert_array_equal(encoded.numpy(), cells)
        decoded = tokenizer.decode(encoded).data
        read = [Instruction(i.name, tuple(i.control_nodes), tuple(i.target_nodes)) for i in decoded]
        assert tuple(read) == circuit.instructions


# ---- what a model may write

# Pool h=1, cx=2, swap=3, ccx=4, padding=5; three qubits, a column a time step.
INVALID = {
    "token out of range": [
        [6, 0, 0],
        [0, -7, 0],
        [0, 0, 127],
        [1, 0, 9],
        [-127, 0, 0],
        [0, -128, 0],
        [-128, 1, 0],
    ],
    "padding inside the circuit": [[5, 0, 0], [5, 1, 0], [0, -2, 5], [5, 5, 0], [-5, 1, 0]],
    "two gates in one time step": [[1, 2, 0], [-2, 2, 1], [3, 4, 0], [-2, 1, 0], [-4, -4, 3]],
    "controls without a target": [[-2, 0, 0], [-1, 0, 0], [-2, -2, 0], [-4, -4, -4], [0, 0, -3]],
    "wrong number of controls or targets": [
        [1, 1, 0],
        [1, -1, 0],
        [2, 0, 0],
        [2, 2, 0],
        [-2, -2, 2],
        [3, 0, 0],
        [3, 3, 3],
        [3, -3, 0],
        [4, -4, 0],
        [4, 4, -4],
    ],
}


@pytest.mark.parametrize("before", [[1, 0, 0], [0, 0, 0]], ids=["after-a-gate", "after-an-empty-step"])
@pytest.mark.parametrize(
    ("reason", "column"), [(reason, column) for reason, columns in INVALID.items() for column in columns]
)
def test_invalid_columns_are_reported(reason: str, column: list[int], before: list[int]) -> None:
    pool = GatePool(["h", "cx", "swap", "ccx"])
    last = [-2, 2, 0]
    good = np.array([before, last, last], dtype=np.int8).T
    bad = np.array([before, column, last], dtype=np.int8).T
    report = decode_tokens(np.stack([good, bad, good]), pool)
    assert report.reasons == (VALID, reason, VALID)
    assert report.valid.tolist() == [True, False, True]
    assert report.counts == {VALID: 2, reason: 1}
    readable = report.ids[1]
    np.testing.assert_array_equal(readable, report.ids[0] * [1, 0, 1])  # the other steps are still read


def test_the_first_wrong_step_names_the_reason() -> None:
    tokens = np.array([[[1, 1, 9], [0, 2, 0]]], dtype=np.int8)
    assert decode_tokens(tokens, GatePool(["h", "cx"])).reasons == ("two gates in one time step",)


@pytest.mark.parametrize(
    ("cells", "is_valid"),
    [
        pytest.param([[1, 3], [0, 3]], True, id="after-the-end"),
        pytest.param([[3, 3], [3, 3]], True, id="nothing-but-padding"),
        pytest.param([[1, 1], [3, 3]], True, id="missing-qubit"),
        pytest.param([[1, 1, 3], [3, 3, 3]], True, id="missing-qubit-and-end"),
        pytest.param([[0, 0, 0], [0, 0, 0]], True, id="no-gate-at-all"),
        pytest.param([[1, 0, 1], [0, 0, 0]], True, id="empty-step-inside"),
        pytest.param([[3, 1], [3, 0]], False, id="before-the-start"),
        pytest.param([[1, 3, 1], [0, 3, 0]], False, id="between-gates"),
        pytest.param([[1, 3], [0, 0]], False, id="half-a-step"),
        pytest.param([[1, 1], [0, 3]], False, id="qubit-vanishes"),
    ],
)
def test_where_padding_may_stand(cells: list[list[int]], is_valid: bool) -> None:
    report = decode_tokens(np.array([cells], dtype=np.int8), GatePool(["h", "cx"]))
    assert report.valid.tolist() == [is_valid]
    assert report.reasons == (VALID if is_valid else "padding inside the circuit",)


def check_report(tokens: np.ndarray, pool: GatePool) -> None:
    table = instruction_table(pool, tokens.shape[1])
    before = tokens.copy()
    report = decode_tokens(tokens, pool)
    np.testing.assert_array_equal(tokens, before, err_msg="the input was changed")
    assert report.ids.shape == (tokens.shape[0], tokens.shape[2])
    assert report.valid.shape == (len(tokens),)
    assert set(report.reasons) <= REASONS
    assert report.valid.tolist() == [reason == VALID for reason in report.reasons]
    assert sum(report.counts.values()) == len(tokens)
    # Every valid sample writes the same cells again, up to padding.
    padding = np.abs(tokens.astype(np.int64)) == pool.padding_token
    again = encode_ids(report.ids, table)
    np.testing.assert_array_equal(again[report.valid], np.where(padding, 0, tokens)[report.valid])


@st.composite
def garbage(draw: st.DrawFn, magnitude: int | None) -> tuple[np.ndarray, GatePool]:
    pool = GatePool(draw(st.sampled_from(list(POOLS.values()))))
    shape = (draw(st.integers(0, 4)), draw(st.integers(width(pool.names), 5)), draw(st.integers(0, 6)))
    low, high = (-128, 127) if magnitude is None else (-magnitude, magnitude)
    return draw(hnp.arrays(np.int8, shape, elements=st.integers(low, high))), pool


@settings(max_examples=200, deadline=None)
@given(garbage(magnitude=None))
def test_any_int8_array_is_reported(case: tuple[np.ndarray, GatePool]) -> None:
    check_report(*case)


@settings(max_examples=300, deadline=None)
@given(garbage(magnitude=3))
def test_any_array_of_small_tokens_is_reported(case: tuple[np.ndarray, GatePool]) -> None:
    check_report(*case)


@pytest.mark.parametrize(("names", "num_qubits"), CASES)
def test_garbage_at_volume(names: tuple[str, ...], num_qubits: int) -> None:
    pool = GatePool(names)
    rng = np.random.default_rng(1)
    noise = rng.integers(-128, 128, (500, num_qubits, 4), dtype=np.int8)
    check_report(noise, pool)
    # A few cells of true circuits changed: nearly right, as from a half-trained model.
    table = instruction_table(pool, num_qubits)
    tokens = encode_ids(random_ids(rng, table, 2000, 0, 6), table)
    changed = rng.random(tokens.shape) < 0.5 / (6 * num_qubits)
    tokens[changed] = rng.integers(-len(pool) - 2, len(pool) + 3, changed.sum())
    check_report(tokens, pool)
    assert 0 < decode_tokens(tokens, pool).valid.sum() < len(tokens)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
@pytest.mark.parametrize("wrap", [2**8, 2**16])
def test_wide_integers_do_not_wrap_into_tokens(dtype: type, wrap: int) -> None:
    pool = GatePool(["h", "cx"])
    for cell in (1, pool.padding_token):
        if cell + wrap > np.iinfo(dtype).max:
            continue
        tokens = np.array([[[cell + wrap], [0]], [[1], [0]]], dtype=dtype)
        assert decode_tokens(tokens, pool).reasons == ("token out of range", VALID)
        tokens = np.array([[[cell - wrap], [0]], [[1], [0]]], dtype=dtype)
        assert decode_tokens(tokens, pool).reasons == ("token out of range", VALID)
        tokens = np.array([[[cell + wrap], [cell + wrap]]], dtype=dtype)
        assert decode_tokens(tokens, pool).reasons == ("token out of range",)


def test_arrays_too_narrow_for_the_pool_are_a_users_error() -> None:
    with pytest.raises(GateSetError, match="'cx' acts on 2 qubits, but the circuits have 1"):
        decode_tokens(np.zeros((1, 1, 3), dtype=np.int8), GatePool(["h", "cx"]))


# ---- circuits to ids


def test_operands_of_equal_role_may_come_in_any_order() -> None:
    table = instruction_table(GatePool(["swap", "ccx"]), 3)
    given_, sorted_ = (
        Circuit(3, (Instruction("swap", (), swap), Instruction("ccx", controls, (1,))))
        for swap, controls in (((2, 0), (2, 0)), ((0, 2), (0, 2)))
    )
    assert circuits_from_ids(ids_from_circuits([given_], table, 2), table) == [sorted_]


def test_narrow_circuits_fit_a_wide_table() -> None:
    table = instruction_table(GatePool(["h", "cx"]), 4)
    bell = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
    ids = ids_from_circuits([bell], table, 3)
    assert circuits_from_ids(ids, table, [2]) == [bell]
    assert circuits_from_ids(ids, table) == [Circuit(4, bell.instructions)]


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        (Circuit(4, ()), "4 qubits and 0 gates does not fit 3 qubits and 2 time steps"),
        (Circuit(1, (Instruction("h", (), (0,)),) * 3), "1 qubits and 3 gates does not fit"),
        (Circuit(1, (Instruction("t", (), (0,)),)), r"gate 't' is not in the gate pool \['h', 'cx'\]"),
    ],
)
def test_circuits_that_do_not_fit_are_refused(circuit: Circuit, message: str) -> None:
    with pytest.raises(GateSetError, match=message):
        ids_from_circuits([circuit], instruction_table(GatePool(["h", "cx"]), 3), 2)


def test_cells_outside_a_circuits_own_size_are_padding_of_any_sign() -> None:
    pool = GatePool(["h", "cx"])
    table = instruction_table(pool, 3)
    bell = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
    ids = ids_from_circuits([bell], table, 4)
    padding, sizes = pool.padding_token, np.array([[2, 3]], dtype=np.int16)
    tokens = encode_ids(ids, table, sizes, (4, 5))
    outside = np.ones((4, 5), dtype=np.bool_)
    outside[:2, :3] = False
    np.testing.assert_array_equal(tokens[0] == padding, outside)
    signs = np.where(np.arange(20).reshape(4, 5) % 2, 1, -1)
    for cells in (tokens, np.where(outside, signs * padding, tokens)):
        report = decode_tokens(cells, pool)
        assert report.valid.tolist() == [True]
        assert circuits_from_ids(report.ids, instruction_table(pool, 4), [2]) == [bell]


@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (2, 3)])
def test_arrays_too_small_for_the_circuits_are_refused(shape: tuple[int, int]) -> None:
    table = instruction_table(GatePool(["h", "cx"]), 3)
    with pytest.raises(ValueError, match="is smaller than 3 qubits and 4 time steps"):
        encode_ids(np.zeros((1, 4), dtype=np.int16), table, shape=shape)
