"""Evolutions of chains of spins: genQC's matrices, formulas written out bit by bit, and circuits that they are."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import scipy.linalg
from qiskit.quantum_info import SparsePauliOp

from quantum_diffusion.cli import run_command
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.search.hamiltonians import CHAINS, FORMS, PauliSum, hamiltonian, read_parameters
from quantum_diffusion.search.unitaries import target_unitary

CASES = [
    ("ising", {"J": 0.4, "h": 0.2, "t": 0.25}),
    ("ising", {"J": -1.3, "h": 0.7, "t": 2.0}),
    ("xxz", {"J": 0.4, "delta": 1.5, "h": 0.2, "t": 0.25}),
    ("xxz", {"J": -0.9, "delta": -0.3, "h": 0.0, "t": 1.1}),
]


def written(name: str, num_qubits: int, parameters: dict[str, float]) -> str:
    return ":".join([name, str(num_qubits), *(f"{key}{value}" for key, value in parameters.items())])


@pytest.mark.parametrize(("name", "parameters"), CASES)
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4])
def test_the_evolution_is_genqc_s(name: str, parameters: dict[str, float], num_qubits: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genqc = pytest.importorskip("genQC.benchmark.bench_compilation")
    made = {"ising": genqc.IsingHamiltonian, "xxz": genqc.XXZHamiltonian}[name]
    static = {key: value for key, value in parameters.items() if key != "t"}
    theirs = made(num_qubits=num_qubits, periodic_boundary=False, **static)
    # genQC puts qubit 0 first in the product; an open chain is the same from both of its ends.
    np.testing.assert_allclose(hamiltonian(name, num_qubits, parameters), theirs.data.numpy(), atol=1e-12)
    evolved = theirs.get_evolution(parameters["t"]).numpy()
    np.testing.assert_allclose(target_unitary(written(name, num_qubits, parameters), 4), evolved, atol=1e-12)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_the_evolution_is_that_of_the_formula(name: str, parameters: dict[str, float]) -> None:
    """By Qiskit's words for products of Pauli matrices, and scipy's exponential."""
    axes = {"Z": 1.0} if name == "ising" else {"X": 1.0, "Y": 1.0, "Z": parameters["delta"]}
    terms = [(2 * axis, [k, k + 1], -parameters["J"] * w) for k in range(2) for axis, w in axes.items()]
    terms += [("X", [k], -parameters["h"]) for k in range(3)]
    operator = SparsePauliOp.from_sparse_list(terms, num_qubits=3)
    expected = scipy.linalg.expm(-1j * parameters["t"] * operator.to_matrix())
    np.testing.assert_allclose(target_unitary(written(name, 3, parameters), 3), expected, atol=1e-12)


def test_without_a_field_the_phases_are_known() -> None:
    """Of two qubits exp(i J t Z Z); and the isotropic exchange is a swap after a quarter of pi."""
    angle = 0.3 * 0.5
    phases = np.exp(1j * angle * np.array([1, -1, -1, 1]))
    np.testing.assert_allclose(target_unitary("ising:2:J0.3:h0:t0.5", 2), np.diag(phases), atol=1e-12)
    swap = target_unitary(f"xxz:2:delta1:t{np.pi / 4}", 2) * np.exp(-1j * np.pi / 4)
    np.testing.assert_allclose(swap, np.eye(4)[[0, 2, 1, 3]], atol=1e-12)


def test_what_is_left_out_has_its_default() -> None:
    np.testing.assert_array_equal(target_unitary("ising", 2), target_unitary("ising:2:J1:h1:t1", 5))
    np.testing.assert_array_equal(target_unitary("xxz:h0.5", 2), target_unitary("xxz:2:J1:delta0.5:t1:h0.5", 5))
    np.testing.assert_array_equal(target_unitary("ising:2:h=.2,J=-4e-1,t=+1", 3), target_unitary("ising:2:J-.4:h.2", 3))
    for name, form in FORMS.items():
        assert read_parameters(form, name, form.partition(" ")[0].split(":")[1:])[1].keys() == CHAINS[name].keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ising:3:J:4", f"cannot read the target 'ising:3:J:4': expected ising or e.g. {FORMS['ising']}"),
        ("ising:3:4", "cannot read the target"),
        ("ising:0", "cannot read the target"),
        ("ising:3:J1:J2", "cannot read the target"),
        ("xxz:3:Jnan", f"expected xxz or e.g. {FORMS['xxz']}"),
        ("ising:3:delta2", "unknown parameter of ising 'delta'"),
        ("ising:3:t1e9", "'ising:3:t1e9' has t1e9: give a number from -1000 to 1000"),
        ("xxz:4", "the target has 4 qubits, but the model writes circuits of at most 3"),
    ],
)
def test_what_cannot_be_read_is_told_the_form(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        target_unitary(text, 3)


def test_sums_joined_with_signs_are_read_and_those_without_are_not() -> None:
    assert PauliSum.parse("1*ZZ+-0.5*XI").terms == ((1.0, "ZZ"), (-0.5, "XI"))
    assert PauliSum.parse("--1*ZZ - 0.5*XI").terms == ((1.0, "ZZ"), (-0.5, "XI"))
    with pytest.raises(ConfigError, match="cannot read the Hamiltonian"):
        PauliSum.parse("1*ZZ 1*XX")


def test_compile_finds_the_swap_and_points_to_the_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("compile", ["xxz:2:delta1:t0.7853981633974483"]) == 0
    assert "1 swap" in capsys.readouterr().out
    discrete = ["ising:3:J0.4:h0.2:t0.25", "compile.model_dir=pretrained:unitary_3q"]
    assert run_command("compile", discrete) == 2
    assert "set compile.tolerance, e.g. to 0.01" in capsys.readouterr().err
    near = ["compile.tolerance=0.03", "compile.max_tries=8"]
    assert run_command("compile", [*discrete, *near]) == 0, "almost nothing happens in so short a time"
    capsys.readouterr()
    nearer = ["compile.tolerance=0.001", "compile.max_tries=1", "compile.max_gates=2"]
    assert run_command("compile", [*discrete, *nearer]) == 3
    assert "set compile.tolerance above 0.027, the infidelity of the best circuit" in capsys.readouterr().err
