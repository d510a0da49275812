"""The synthesis plugin as Qiskit runs it: exact blocks, in the basis, on the coupling, cheaper than Qiskit's own."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import CXGate, RXGate, RZGate, UnitaryGate
from qiskit.exceptions import QiskitError
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, random_unitary
from qiskit.transpiler import CouplingMap, PassManager, Target
from qiskit.transpiler.passes import UnitarySynthesis
from qiskit.transpiler.passes.synthesis.plugin import unitary_synthesis_plugin_names

from quantum_diffusion.circuits.backends.devices import Device, cost, device_of
from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.pretrained import WEIGHTS
from quantum_diffusion.search import exact
from quantum_diffusion.search.qiskit_plugin import PluginConfig

NAME = "quantum_diffusion"
BASIS = ["rz", "sx", "x", "cx"]
ROOT = Path(__file__).parents[2]


def block(num_qubits: int = 3) -> UnitaryGate:
    """A block that is not Clifford, with a global phase."""
    circuit = QuantumCircuit(num_qubits, global_phase=0.3)
    circuit.h(0)
    circuit.ccx(0, 1, 2)
    circuit.cx(1, num_qubits - 1)
    return UnitaryGate(Operator(circuit))


def block_with_angles() -> UnitaryGate:
    """A block that takes three two-qubit gates, and no discrete gates can make."""
    circuit = QuantumCircuit(3, global_phase=0.3)
    circuit.rx(0.3, 0)
    circuit.cx(0, 1)
    circuit.ry(1.9, 1)
    circuit.cp(0.7, 1, 2)
    circuit.rz(2.2, 1)
    return UnitaryGate(Operator(circuit))


def holding(gate: UnitaryGate) -> QuantumCircuit:
    circuit = QuantumCircuit(gate.num_qubits)
    circuit.append(gate, range(gate.num_qubits))
    return circuit


def compiled(circuit: QuantumCircuit, basis: list[str] | None = BASIS, level: int = 1, **options: Any) -> Any:
    """Transpile with the plugin, a tenth of a second a block."""
    config = {"max_seconds": 0.1, **options.pop("config", {})}
    return transpile(
        circuit,
        basis_gates=basis,
        optimization_level=level,
        seed_transpiler=0,
        unitary_synthesis_method=NAME,
        unitary_synthesis_plugin_config=config,
        **options,
    )


def pairs_of(circuit: QuantumCircuit) -> set[tuple[int, ...]]:
    steps = (step.qubits for step in circuit.data if len(step.qubits) > 1)
    return {tuple(sorted(circuit.find_bit(qubit).index for qubit in qubits)) for qubits in steps}


def test_qiskit_lists_the_plugin() -> None:
    assert NAME in unitary_synthesis_plugin_names()


# ---------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("basis", [BASIS, ["rz", "sx", "x", "ecr"], ["u", "cz"], ["h", "t", "tdg", "cx"]], ids=str)
def test_a_block_is_exact_with_its_phase_and_cheaper_than_qiskits(basis: list[str]) -> None:
    circuit = holding(block())
    result = compiled(circuit, basis)
    assert Operator(result) == Operator(circuit)
    assert set(result.count_ops()) <= set(basis)
    default = transpile(circuit, basis_gates=basis, optimization_level=1, seed_transpiler=0)
    # With discrete gates alone Qiskit approximates each rotation by thousands, and a slow machine finds a few more cx.
    objective = "gates" if "t" in basis else "two_qubit_gates"
    assert cost(result, objective) < cost(default, objective)


def test_depth_may_be_what_counts() -> None:
    circuit = holding(block())
    result = compiled(circuit, config={"objective": "depth"})
    assert Operator(result) == Operator(circuit)
    assert result.depth() < transpile(circuit, basis_gates=BASIS, optimization_level=1).depth()


def test_a_block_that_does_nothing_takes_no_gate() -> None:
    assert compiled(holding(UnitaryGate(np.eye(8) * 1j))).count_ops() == {}


@pytest.mark.parametrize(
    ("entangler", "model"),
    [("cx", None), ("ecr", None), ("cx", "pretrained:angles_3q"), ("ecr", str(WEIGHTS / "angles_3q"))],
    ids=["cx", "ecr", "a pretrained model", "a folder"],
)
def test_a_block_with_angles_is_exact_with_its_phase_and_cheaper_than_qiskits(
    entangler: str, model: str | None
) -> None:
    basis, circuit = ["rz", "sx", "x", entangler], holding(block_with_angles())
    result = compiled(circuit, basis, config={"max_seconds": 60, "stop_at_first": True, "model": model})
    assert np.abs(Operator(result).data - Operator(circuit).data).max() < 1e-8
    assert set(result.count_ops()) <= set(basis)
    default = transpile(circuit, basis_gates=basis, optimization_level=3, seed_transpiler=0)
    assert cost(result, "two_qubit_gates") < cost(default, "two_qubit_gates")


@pytest.mark.parametrize("level", [0, 3])
def test_blocks_in_a_circuit_on_a_line(level: int) -> None:
    angle = Parameter("angle")
    circuit = QuantumCircuit(5)
    circuit.h(4)
    circuit.append(block(), [3, 0, 2])
    circuit.rz(angle, 0)
    circuit.append(block(4), [1, 2, 3, 4])
    circuit.cx(4, 0)
    result = compiled(circuit, level=level, coupling_map=CouplingMap.from_line(5))
    assert set(result.count_ops()) <= set(BASIS)
    assert pairs_of(result) <= {(0, 1), (1, 2), (2, 3), (3, 4)}
    assert list(result.parameters) == [angle]
    values = {angle: 0.7}
    assert Operator.from_circuit(result.assign_parameters(values)) == Operator(circuit.assign_parameters(values))


def test_a_circuit_may_be_controlled() -> None:
    controlled = compiled(holding(block())).to_gate().control()
    assert Operator(controlled) == Operator(block().control(annotated=True))


@pytest.mark.parametrize("gate", [block(), block_with_angles()], ids=["discrete", "with angles"])
def test_directions_of_a_device_are_kept(gate: UnitaryGate) -> None:
    backend = GenericBackendV2(4, ["ecr", "rz", "sx", "x", "id"], coupling_map=[[0, 1], [2, 1], [2, 3]], seed=1)
    circuit = QuantumCircuit(4)
    circuit.append(gate, [0, 1, 3])
    result = transpile(
        circuit,
        backend,
        seed_transpiler=0,
        unitary_synthesis_method=NAME,
        unitary_synthesis_plugin_config={"max_seconds": 0.1},
    )
    assert np.abs(Operator.from_circuit(result).data - Operator(circuit).data).max() < 1e-8
    for step in result.data:
        qubits = tuple(result.find_bit(qubit).index for qubit in step.qubits)
        assert backend.target.instruction_supported(step.operation.name, qubits)


def test_searches_can_stop_at_the_first_circuit() -> None:
    started = time.perf_counter()
    result = compiled(holding(block(4)), config={"max_seconds": 120, "stop_at_first": True})
    assert Operator.from_circuit(result) == Operator(holding(block(4)))
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize("gate", [block(), block_with_angles()], ids=["discrete", "with angles"])
def test_what_is_placed_already_keeps_to_coupled_pairs(gate: UnitaryGate) -> None:
    config = {"max_seconds": 20, "stop_at_first": True, "placed": True}
    synthesis = UnitarySynthesis(BASIS, coupling_map=CouplingMap.from_line(3), method=NAME, plugin_config=config)
    result = PassManager([synthesis]).run(holding(gate))
    assert np.abs(Operator(result).data - Operator(holding(gate)).data).max() < 1e-8
    assert pairs_of(result) == {(0, 1), (1, 2)}
    assert set(result.count_ops()) <= set(BASIS)


# ------------------------------------------------------------------------------------------- left to Qiskit


@pytest.mark.parametrize(
    "make",
    [
        lambda: UnitaryGate(random_unitary(8, seed=1)),
        lambda: UnitaryGate(random_unitary(4, seed=1).expand(np.eye(2)) @ random_unitary(4, seed=2).tensor(np.eye(2))),
        lambda: UnitaryGate(Operator(QuantumCircuit(6).compose(block(4), [0, 2, 3, 5]))),
    ],
    ids=["random", "two random ones", "six qubits"],
)
def test_what_the_models_cannot_do_is_left_to_qiskit(make: Callable[[], UnitaryGate]) -> None:
    circuit = holding(make())
    assert compiled(circuit) == transpile(circuit, basis_gates=BASIS, optimization_level=1, seed_transpiler=0)


def test_no_circuit_that_is_only_nearly_the_block_is_taken() -> None:
    near = QuantumCircuit(3)
    near.append(block(), range(3))
    near.rz(3e-4, 1)
    circuit = holding(UnitaryGate(Operator(near)))
    assert np.abs(Operator(compiled(circuit)).data - Operator(circuit).data).max() < 1e-8


def test_models_with_angles_are_asked_where_others_find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Nothing:
        seconds: float
        circuits: tuple[()] = ()
        interrupted: bool = False

    asked = []

    def find_nothing(pipeline: Any, unitary: Any, max_seconds: float, **options: Any) -> Nothing:
        asked.append((bool(pipeline.gate_pool.num_angles), max_seconds))
        return Nothing(seconds=max_seconds + 1)

    monkeypatch.setattr(exact, "find_exact", find_nothing)
    compiled(holding(block()), config={"max_seconds": 1.0, "seed": 7})
    assert asked == [(False, 0.75), (True, 0.25)]
    asked.clear()
    compiled(holding(block_with_angles()), config={"max_seconds": 1.0, "seed": 7})
    assert asked == [(True, 1.0)]
    asked.clear()
    compiled(holding(block()), ["h", "t", "tdg", "cx"], config={"max_seconds": 1.0, "seed": 7})
    assert asked == [(False, 1.0)]


def test_devices_of_discrete_gates_have_no_use_for_models_with_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(exact, "find_exact")
    compiled(holding(block()), ["h", "t", "tdg", "cx"], config={"model": "pretrained:angles_3q"})


def test_without_gates_on_two_qubits_qiskit_says_so() -> None:
    with pytest.raises(QiskitError, match="Unable to translate"):
        compiled(holding(block()), ["rz", "sx", "x"])


def test_a_basis_without_ccx_or_t_is_left_to_qiskit_where_it_takes_them() -> None:
    with pytest.raises(QiskitError, match="Unable to translate"):
        compiled(holding(block()), ["h", "cx", "x", "z"])


def test_without_a_basis_blocks_stay() -> None:
    assert compiled(holding(block()), None).count_ops() == {"unitary": 1}


def test_qiskit_alone_loads_no_torch_and_prints_nothing() -> None:
    program = f"""
import sys
from qiskit import QuantumCircuit, transpile
from qiskit.quantum_info import random_unitary
circuit = QuantumCircuit(3)
circuit.unitary(random_unitary(8, seed=0), range(3))
circuit.unitary(random_unitary(4, seed=0), range(2))
transpile(circuit, basis_gates={BASIS}, unitary_synthesis_method="{NAME}")
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# -------------------------------------------------------------------------------------------- the user's part


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_second": 1}, "unknown key of unitary_synthesis_plugin_config 'max_second': did you mean 'max_seconds'?"),
        ({"max_seconds": 0}, "max_seconds is 0: give seconds"),
        ({"max_seconds": "1"}, "max_seconds"),
        ({"objective": "t_count"}, "unknown objective 't_count'"),
        ({"max_qubits": 6}, "max_qubits is 6: give 3 to 5"),
        ({"model": "pretrained:srv"}, "unknown model 'pretrained:srv'"),
        ({"model": "pretrained:angles_4q"}, "unknown model 'pretrained:angles_4q': did you mean"),
        ({"placed": "no"}, "placed is 'no'"),
        ({"stop_at_first": 1}, "stop_at_first is 1"),
        ({"seed": -1}, "seed is -1"),
    ],
    ids=lambda value: str(value),
)
def test_wrong_configurations_are_refused_in_a_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        PluginConfig.read(config)
    assert "\n" not in str(refused.value)


def test_transpile_shows_what_is_wrong_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        compiled(holding(block()), config={"sed": 1})


def test_a_block_that_comes_again_is_searched_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    find = exact.find_exact
    monkeypatch.setattr(exact, "find_exact", lambda *args, **kwargs: searches.append(1) or find(*args, **kwargs))
    circuit = QuantumCircuit(4)
    for qubits in permutations(range(4), 3):
        circuit.append(block(), qubits)
    compiled(circuit, config={"seed": 5})
    assert len(searches) == 1


def test_ctrl_c_ends_qiskit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Interrupted:
        interrupted: bool = True

    monkeypatch.setattr(exact, "find_exact", lambda *args, **kwargs: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        compiled(holding(block()), config={"seed": 6})


def test_the_example_of_the_docs_runs() -> None:
    page = (ROOT / "docs" / "qiskit.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert Operator.from_circuit(names["compiled"]) == Operator(names["circuit"])


# --------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("qubits", list(permutations(range(3))))
@pytest.mark.parametrize("middle", range(3))
def test_ccx_on_a_line_takes_eight_gates(qubits: tuple[int, ...], middle: int) -> None:
    pairs = tuple(sorted(tuple(sorted((middle, other))) for other in range(3) if other != middle))
    circuit = Circuit(3, (Instruction("ccx", qubits[:2], qubits[2:]),))
    result = Device(("cx", "h", "t", "tdg"), pairs).translate(circuit)[-1]
    wanted = QuantumCircuit(3)
    wanted.ccx(*qubits)
    assert Operator(result) == Operator(wanted)
    assert pairs_of(result) == set(pairs)
    assert result.count_ops()["cx"] == 8


def test_gates_of_a_fixed_angle_are_not_taken_for_any() -> None:
    target = Target(num_qubits=2)
    target.add_instruction(RXGate(np.pi / 2), {(0,): None, (1,): None})
    target.add_instruction(RZGate(Parameter("angle")), {(0,): None, (1,): None})
    target.add_instruction(CXGate(), {(0, 1): None})
    assert device_of(target, None, None, [0, 1]).basis == ("cx", "rz")


@pytest.mark.parametrize(
    ("qubits", "pairs"),
    [([1, 2, 3], ((0, 1), (1, 2))), ([2, 1, 0], ((0, 1), (1, 2))), ([0, 2, 1], ((0, 2), (1, 2))), ([0, 2, 4], None)],
)
def test_pairs_are_numbered_as_the_block_is(qubits: list[int], pairs: tuple[tuple[int, int], ...] | None) -> None:
    coupling = CouplingMap([[0, 1], [2, 1], [2, 3], [3, 4]])
    assert device_of(None, BASIS, coupling, qubits).pairs == pairs


def test_a_device_runs_its_gates_on_its_pairs_and_knows_what_they_cost() -> None:
    line, free = Device(("cx", "rz", "sx"), ((0, 1), (1, 2))), Device(("cx", "rz", "sx"))
    fitting, foreign, far = QuantumCircuit(3), QuantumCircuit(3), QuantumCircuit(3)
    fitting.cx(0, 1)
    fitting.cx(2, 1)
    fitting.sx(2)
    foreign.h(0)
    far.cx(0, 2)
    assert [line.runs(native) for native in (fitting, foreign, far)] == [True, False, False]
    assert [free.runs(native) for native in (fitting, foreign, far)] == [True, False, True]
    routed = line.routed(far)
    assert routed is not None
    assert line.runs(routed)
    needed = {"h": 0, "cx": 1, "swap": 3, "ccx": 6, "ry": 0, "cp": 2}
    assert line.costs([*needed, "cswap"]) == needed, "of the gates on three qubits only ccx is taken apart"
    assert free.costs(needed) == needed
    assert "cswap" in free.costs(["cswap"])


@pytest.mark.parametrize(
    ("basis", "rotates"),
    [
        (("cx", "rz", "sx"), True),
        (("cz", "t", "u"), True),
        (("cx", "h", "t", "tdg"), False),
        (("cx", "h", "rz", "t", "tdg"), False),
        (("h", "rzz", "t"), False),
    ],
    ids=str,
)
def test_a_device_rotates_where_a_gate_on_one_qubit_has_an_angle(basis: tuple[str, ...], rotates: bool) -> None:
    assert Device(basis).rotates == rotates


@pytest.mark.parametrize(
    ("edges", "pairs"),
    [([(0, 1), (1, 2)], ((0, 1), (1, 2))), ([(2, 0), (1, 2)], ((0, 2), (1, 2))), ([(1, 2)], None), ([(0, 1)], None)],
)
def test_a_coupling_counts_where_it_connects_the_block(edges: list[Any], pairs: Any) -> None:
    assert device_of(None, BASIS, CouplingMap([*edges, (3, 4)]), [0, 1, 2]).pairs == pairs
    assert device_of(None, BASIS, CouplingMap([(0, 1), (2, 3)]), [0, 1, 2, 3]).pairs is None


def test_costs_begin_with_the_objective() -> None:
    native = QuantumCircuit(3)
    native.x(2)
    native.h(0)
    native.t(0)
    native.cx(0, 1)
    native.ccx(0, 1, 2)
    assert cost(native, "two_qubit_gates") == (3, 4, 5)
    assert cost(native, "depth") == (4, 3, 5)
    assert cost(native, "gates") == (5, 3, 4)
