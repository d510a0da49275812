"""The Python face: what a notebook does, from a shipped model to one of its own, and how each thing shows itself."""

from __future__ import annotations

import html.parser
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pennylane
import pytest
from qiskit import QuantumCircuit, qasm3
from qiskit.quantum_info import Operator, Statevector, random_unitary

import quantum_diffusion as qd
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.tokenizer import circuits_from_ids
from quantum_diffusion.errors import GateSetError, QuantumDiffusionError

SWAP = qd.Circuit(2, (qd.Instruction("swap", (), (0, 1)),))  # of three cx in two ways
BELL = qd.Circuit(2, (qd.Instruction("h", (), (0,)), qd.Instruction("cx", (0,), (1,))))


def random_circuits(count: int) -> list[qd.Circuit]:
    """Circuits of all gates on three qubits."""
    table = instruction_table(GatePool(list(GATES)), 3)
    return circuits_from_ids(random_ids(np.random.default_rng(0), table, count, 1, 12), table)


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, quantum_diffusion as qd\n"
        "assert not {'torch', 'qiskit', 'numpy', 'pydantic', 'hydra'} & set(sys.modules)\n"
        "assert {'load', 'sample', 'compile', 'prepare', 'generate', 'train', 'Circuit'} <= set(dir(qd))\n"
        "qd.Circuit(1, ())\n"
        "assert not {'torch', 'qiskit', 'pydantic', 'hydra'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        qd.nothing  # noqa: B018
    for name in qd.__all__:
        assert getattr(qd, name).__doc__


# -------------------------------------------------------------------------------------------------- circuits


def test_circuits_go_to_other_libraries_and_come_back() -> None:
    for circuit in random_circuits(40):
        native = circuit.to_qiskit()
        assert isinstance(native, QuantumCircuit)
        assert qd.Circuit.from_qiskit(native) == circuit
        assert qd.Circuit.from_qasm(circuit.to_qasm2()) == circuit
        # Qiskit's reader of OpenQASM 3 keeps the phases of gates with angles only up to a global one.
        assert Operator(qasm3.loads(circuit.to_qasm3())).equiv(Operator(native))
        assert qd.Circuit.from_qasm(circuit.to_qasm3()) == circuit
        # PennyLane's first wire is the highest bit, ours the lowest.
        matrix = pennylane.matrix(circuit.to_pennylane(), wire_order=[2, 1, 0])
        assert np.allclose(matrix, Operator(native).data)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: qd.Circuit.from_qiskit("h 0"), "the circuit is 'h 0': give a qiskit"),
        (lambda: qd.Circuit.from_qasm(BELL), "program is a Circuit: give a str"),
        (lambda: qd.Circuit.from_qasm("nonsense"), "cannot read the text as OpenQASM"),
        (lambda: BELL.draw("latex"), "unknown output 'latex'"),
    ],
)
def test_what_is_no_circuit_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(qd.QuantumDiffusionError, match=said.replace("(", r"\(")) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_pennylane_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pennylane", None)
    with pytest.raises(qd.QuantumDiffusionError, match=r"pip install 'quantum-diffusion\[pennylane\]'"):
        BELL.to_pennylane()


def test_a_gate_that_pennylane_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantum_diffusion.circuits.backends.pennylane._NAMES", {"h": "Hadamard"})
    with pytest.raises(GateSetError, match="PennyLane has no gate 'cx'"):
        BELL.to_pennylane()


def test_circuits_show_themselves() -> None:
    assert str(BELL) == BELL.draw() == "     ┌───┐\nq_0: ┤ H ├──■──\n     └───┘┌─┴─┐\nq_1: ─────┤ X ├\n          └───┘"
    long = qd.Circuit(2, BELL.instructions * 20)
    assert max(map(len, long.draw(width=60).splitlines())) <= 60 < max(map(len, str(long).splitlines()))
    assert BELL._repr_png_().startswith(b"\x89PNG")
    assert BELL.draw("mpl").axes
    assert balanced(BELL._repr_html_()) == ["pre"]


def balanced(text: str) -> list[str]:
    """Return the elements of some HTML, each of which ends."""
    seen, open_ones = [], []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            seen.append(tag)
            open_ones.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_ones.pop() == tag

    Reader().feed(text)
    assert not open_ones
    return seen


# -------------------------------------------------------------------------------------------------- answers


def test_a_vector_is_answered() -> None:
    model = qd.load("pretrained:srv", device="cpu")
    assert "Schmidt rank vectors of up to 8 qubits" in repr(model)
    found = model.sample([2, 1, 2, 2], num=5, seed=0)
    assert len(found) == len(list(found)) == len(set(found)) == 5
    for circuit in found:
        assert QiskitBackend().schmidt_rank_vector(circuit) == [2, 1, 2, 2]
    costs = [len(circuit) for circuit in found]
    assert costs == sorted(costs)
    assert list(found) == list(qd.sample([2, 1, 2, 2], num=5, seed=0, device="cpu"))
    assert found[0] == found[:2][0]


def test_samples_are_simplified_unless_told_otherwise() -> None:
    simple = qd.sample([1, 2, 2, 1], num=60, max_tries=400, seed=3, device="cpu")
    as_written = qd.sample([1, 2, 2, 1], num=60, max_tries=400, seed=3, device="cpu", simplify=False)
    mean = [np.mean([len(circuit) for circuit in found]) for found in (simple, as_written)]
    assert mean[0] < mean[1]
    assert all(QiskitBackend().schmidt_rank_vector(circuit) == [1, 2, 2, 1] for circuit in simple)
    first = as_written[0]
    kept = qd.sample([1, 2, 2, 1], num=3, seed=0, device="cpu", edit=qd.Edit(start=first, keep=(0,)))
    for circuit in kept:
        assert circuit.instructions[0] == first.instructions[0], "what is kept is never simplified away"


@pytest.mark.parametrize(
    "target",
    [
        BELL,
        BELL.to_qiskit(),
        Operator(BELL.to_qiskit()).data,
        "ghz:2",
    ],
    ids=["circuit", "qiskit", "matrix", "name"],
)
def test_a_unitary_is_compiled_whatever_it_comes_as(target: Any) -> None:
    (circuit,) = qd.compile(target, gates=np.array(["h", "cx"]), device="cpu", seed=0)
    assert Operator(circuit.to_qiskit()).equiv(Operator(BELL.to_qiskit()))


def test_options_reach_the_search() -> None:
    target = qd.Circuit.from_qasm('OPENQASM 2.0; include "qelib1.inc"; qreg q[4]; h q[0]; cx q[0],q[3];')
    line = [(0, 1), (1, 2), (2, 3)]
    found = qd.compile(target, coupling=line, gates=["h", "cx", "swap"], seed=0, device="cpu")
    assert found.search == "beam"
    for instruction in found[0].instructions:
        assert len(instruction.qubits) == 1 or tuple(sorted(instruction.qubits)) in line
    wide = qd.Circuit(3, SWAP.instructions)
    untouched = qd.compile(wide, fixed_qubits=[2], gates=["cx"], seed=0, device="cpu")
    assert {qubit for step in untouched[0].instructions for qubit in step.qubits} == {0, 1}
    with pytest.raises(QuantumDiffusionError, match="fixed"):
        qd.compile(wide, fixed_qubits=[1], seed=0, device="cpu")
    sampled = qd.compile(SWAP, gates=["cx"], search="sampling", num=2, temperature=1, seed=0, device="cpu")
    assert (sampled.search, len(sampled)) == ("sampling", 2)
    calls: list[tuple[int, int]] = []
    qd.compile(BELL, progress=lambda *counts: calls.append(counts), device="cpu")
    assert calls


def test_a_state_is_prepared() -> None:
    state = np.array([1, 0, 0, 0, 0, 0, 0, -1]) / np.sqrt(2)
    (circuit,) = qd.prepare(state, device="cpu")
    assert Statevector(circuit.to_qiskit()).equiv(Statevector(state))


def test_results_show_themselves() -> None:
    found = qd.compile(SWAP, gates=["cx"], num=2, max_seconds=0.5, device="cpu", seed=0)
    rows = found.rows()
    assert [row["gates"] for row in rows] == [len(circuit) for circuit in found]
    assert all(row["exact"] and row["infidelity"] < 1e-9 and row["depth"] <= row["gates"] for row in rows)
    assert json.loads(json.dumps(rows)) == rows
    assert repr(found) == f"<Compilation: {found.summary}>"
    text = str(found)
    assert text.startswith("2 distinct circuits for the target (beam search")
    assert text.count("┤ X ├") == 6
    frame = found.to_pandas()
    assert frame["circuit"].tolist() == list(found)
    assert frame["gates"].tolist() == [row["gates"] for row in rows]
    elements = balanced(found._repr_html_())
    assert elements.count("pre") == 2
    assert elements.count("tr") == 3
    none = qd.sample([1, 2, 2], num=1, max_tries=1, temperature=50, seed=1, device="cpu")
    if not len(none):
        assert str(none).startswith("0 distinct circuits")
        assert balanced(none._repr_html_()) == ["p"]


def test_pandas_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = qd.compile(BELL, device="cpu")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(qd.QuantumDiffusionError, match="pip install pandas"):
        found.to_pandas()


def test_seeds_are_drawn_where_none_is_given() -> None:
    one, other, again = (qd.sample([2, 2, 2, 2, 2], num=3, seed=seed, device="cpu") for seed in (None, None, 7))
    assert list(one) != list(other)
    assert list(again) == list(qd.sample([2, 2, 2, 2, 2], num=3, seed=7, device="cpu"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: qd.load("pretrained:srw"), r"unknown pretrained model 'srw': did you mean 'srv'\?"),
        (lambda: qd.load("nowhere"), "no saved model at 'nowhere'"),
        (lambda: qd.load(3), "the model is 3: give a path"),  # type: ignore[arg-type]
        (lambda: qd.load("hf://owner"), "cannot read the address 'hf://owner': expected hf://owner/name"),
        (lambda: qd.load("pretrained:srv").compile("ccz"), r"answers Schmidt rank vectors: ask it with \.sample\(\)"),
        (lambda: qd.load("pretrained:state").sample([1, 2, 2]), r"answers states: ask it with \.prepare\(\)"),
        (lambda: qd.sample([1, 2, 2], sed=1), "unknown option 'sed': did you mean 'seed'"),  # type: ignore[call-arg]
        (lambda: qd.sample([1, 2, 2], temperature=-1), "temperature"),
        (lambda: qd.sample("122"), "srv is '122': give a list"),
        (lambda: qd.load(""), "the model is empty: give a path"),
        (lambda: qd.sample([1, 2, 2], num=0), "^num is 0: give 1 or more"),
        (lambda: qd.sample([1]), r"^srv=\[1\] has 1 qubit, but this model takes 3 to 8 qubits: give as many ranks"),
        (lambda: qd.sample([3, 3]), r"srv is \[3, 3\]: a qubit has rank 1 \(separable\) or 2 \(entangled\), given 3"),
        (lambda: qd.sample([1, 2, 2], guidance_scale=float("nan")), "^guidance_scale: expected a finite number"),
        (lambda: qd.sample([1, 2, 2], max_seconds=float("nan")), "or None for no limit"),
        (lambda: qd.compile("toffoli", gates=["h", "cx"]), "add ccx to gates$"),
        (lambda: qd.load("pretrained:unitary_3q").compile("ccz", device="cpu"), r"device belongs to qd\.load: load"),
        (lambda: qd.generate(foo=1), "^foo: unknown key 'foo'"),
        (lambda: qd.generate(num_samples=None), "^num_samples: expected a whole number, given None"),
        (lambda: qd.load("pretrained:unitary_3q").compile("qft:3"), "all of them are real"),
        (lambda: qd.compile("ccz", coupling=5), "coupling is 5: give a list"),  # type: ignore[arg-type]
        (lambda: qd.compile("ccz", coupling=[(0, 1)], edit=qd.Edit(coupling=((1, 2),))), "both give coupling"),
        (lambda: qd.compile("ccz", fixed_qubits=2), "^fixed_qubits is 2: give"),  # type: ignore[arg-type]
        (lambda: qd.compile("ccz", fixed_qubits=[9]), "^fixed_qubits"),
        (lambda: qd.refine(qd.Circuit(1, ()), "qft:1", energy="1*Z"), "give one of target, state and energy"),
        (
            lambda: qd.compile(random_unitary(2, seed=1).data, gates=["rz"]),
            "add h, rx or ry to gates",
        ),
        (lambda: qd.sample(np.array(2)), "srv is a ndarray: give a list"),
        (lambda: qd.sample({1, 2}), "srv is a set: give a list"),  # type: ignore[arg-type]
        (lambda: qd.sample([1, 2, 2], simplify="no"), "simplify is 'no': give a bool"),  # type: ignore[arg-type]
        (lambda: qd.sample([1, 2, 2], progress=5), "progress is 5: give a function"),  # type: ignore[arg-type]
        (lambda: qd.sample([1, 2, 2], objective={}), r"objective is \{\}: give one of gates, two_qubit_gates"),
        (lambda: qd.compile("ccz", objective={"gates": float("nan")}), "the weight of 'gates' is nan: give a number"),
        (lambda: qd.compile("ccz", objective={"gates": "a"}), "the weight of 'gates' is 'a'"),  # type: ignore[dict-item]
        (lambda: qd.prepare("ghz:2", objective=5), "objective is 5: give one of"),  # type: ignore[arg-type]
        (lambda: qd.train(None), "the data set is None: give a path"),  # type: ignore[arg-type]
        (lambda: qd.train("data", settings=[]), r"settings is \[\]: give a dict"),  # type: ignore[arg-type]
        (lambda: qd.train("data", output_path=5), "output_path is 5: give a path"),  # type: ignore[arg-type]
        (lambda: qd.evaluate(None, None), "the model is None: give a path"),  # type: ignore[arg-type]
        (lambda: qd.generate(output_path=5), "output_path is 5: give a path"),  # type: ignore[arg-type]
        (lambda: qd.generate("no_such"), "unknown datasets preset 'no_such'"),
        (lambda: qd.generate("quick_test_srv", num=1), "unknown key 'num'"),
        (lambda: qd.generate(condition_type="BOTH"), "makes two data sets: give an output_path"),
        (lambda: qd.train("nowhere", "quick_test_srv"), "the data set 'nowhere' does not exist"),
    ],
)
def test_mistakes_are_told_in_a_line(call: Callable[[], object], said: str) -> None:
    with pytest.raises(qd.QuantumDiffusionError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- a model of one's own


def test_data_a_model_and_its_evaluation(tmp_path: Path) -> None:
    odd = tmp_path / "it's ${odd}, [really]"  # a name is a name, whatever Hydra would read in it
    memory = qd.generate("quick_test_srv", num_samples=np.int64(600))
    written = qd.generate("quick_test_srv", output_path=odd / "data", num_samples=600)
    assert memory.fingerprint == written.fingerprint
    assert repr(memory).startswith("<CircuitDataset: 600 circuits of up to 3 qubits and")
    small = {"training.max_steps": 5, "model.params": {"width": 16, "depth": 1}, "general.device": "cpu"}
    model = qd.train(odd / "data", "quick_test_srv", output_path=odd / "model", settings=small)
    assert len(model.sample([1, 1, 1], num=1, seed=0)) <= 1
    assert qd.load(odd / "model", device="cpu").name == str(odd / "model")
    card = (odd / "model" / "README.md").read_text()
    assert "Schmidt rank vectors of up to 3 qubits" in card
    result = qd.evaluate(odd / "model", odd / "data", "quick_test_srv", settings={"num_samples": 40, "device": "cpu"})
    assert str(result).startswith("SRV accuracy")
    assert (
        repr(result)
        == f"<EvaluationResult: {sum(map(len, result.verified.values()))} verified circuits, in {result.folder}>"
    )
    saved = json.loads((odd / "model/evaluation/metrics.json").read_text())
    assert {key: saved[key] for key in result.metrics.to_dict()} == json.loads(json.dumps(result.metrics.to_dict()))
    again = qd.train(  # on the weights of a model by its address
        odd / "data",
        "quick_test_srv",
        output_path=odd / "next",
        settings={**small, "general.init_from_pipeline_dir": str(odd / "model")},
    )
    assert again.pipeline.num_parameters == model.pipeline.num_parameters
