"""Measures how often a model of gates with angles finds exact circuits for unseen targets, beside chance.

    python benchmarks/angles.py MODEL [--gates 2,4,6,8,10] [--targets 50] [--tries 128] [--seconds 5] [--seed 0]
        [--exact 0] [--objective NAME] [--json FILE]

Targets are the unitaries (or, for a model of states, the states) of random circuits of so many gates that merging
rotations leaves, over a random subset of the model's gates, with uniform angles; the search is told the subset, not the
length. It ends with the first exact circuit (infidelity below 1e-10), after --tries samples, or after --seconds. With
--objective it looks for the cheapest circuit until --seconds are over, and all costs are printed. --exact collects so
many circuits called exact, over lengths 2 to 8, and asks Qiskit of each. Chance is as many random circuits of the
target's gates and length with refined angles. Every circuit called exact is asked of Qiskit. Seconds are processor
seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from qiskit.quantum_info import Operator

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import COSTS
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import Angles, Ids, InstructionTable, gate_count
from quantum_diffusion.circuits.matrices import EXACT_ANGLES, infidelities
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.rotations import merge_rotations
from quantum_diffusion.evaluation.metrics import wilson_interval
from quantum_diffusion.evaluation.target_metrics import LEVELS
from quantum_diffusion.interop.opening import load_pipeline
from quantum_diffusion.search.exact import find_exact
from quantum_diffusion.tasks.candidates import random_subsets
from quantum_diffusion.tasks.refinement import refine
from quantum_diffusion.tasks.state import StateTask, returns
from quantum_diffusion.tasks.targets import TargetTask

_WRONG = 1e-9
"""Infidelity by Qiskit above which a circuit called exact is wrong."""


def draw(
    table: InstructionTable, length: int, count: int, rng: np.random.Generator, of_states: bool = False
) -> tuple[Ids, Angles, NDArray[np.bool_]]:
    """Return random circuits of exactly so many gates after merging: ids, angles and the allowed gates [count, G].

    With `of_states`, no gate may leave the state that the gates before it prepare as it is.
    """
    parts: list[tuple[Ids, Angles, NDArray[np.bool_]]] = []
    while sum(len(part[0]) for part in parts) < count:
        number = 4 * count
        allowed = random_subsets(rng, len(table.pool), rng.integers(1, len(table.pool) + 1, number))
        ids = random_ids(rng, table, number, length, length, gates=allowed)
        ids, angles = merge_rotations(ids, table.random_angles(ids, rng), table)
        whole = gate_count(ids) == length
        if of_states:
            whole &= ~returns(ids, table, angles).any(axis=1)
        parts.append((ids[whole], angles[whole], allowed[whole]))
    ids, angles, allowed = (np.concatenate(each)[:count] for each in zip(*parts, strict=True))
    return ids, angles, allowed


def chance(
    table: InstructionTable, allowed: NDArray[np.bool_], length: int, tries: int, target: Any, rng: np.random.Generator
) -> float:
    """Return the least infidelity of random circuits of a length with refined angles."""
    ids = random_ids(rng, table, tries, length, length, gates=np.repeat(allowed[None], tries, axis=0))
    return float(refine(ids, table.random_angles(ids, rng), target[None], table)[1].min())


def by_qiskit(circuit: Circuit, target: Any) -> float:
    """Return the infidelity of a circuit by Qiskit's simulation."""
    made = np.asarray(Operator(circuit.to_qiskit()).data)[:, : target.shape[1]]
    return float(infidelities(made[None], target[None])[0])


def measure(model: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """Search for circuits for targets of one length and return the figures."""
    pipeline = load_pipeline(model)
    rng = np.random.default_rng((options.seed, length))
    task = pipeline.task
    assert isinstance(task, TargetTask)
    ids, angles, allowed = draw(pipeline.table, length, options.targets, rng, isinstance(task, StateTask))
    targets = task.targets_of(ids, pipeline.table, angles)  # [N, D, R]
    names = np.array(pipeline.gate_pool.names)
    nearest, costs, wrong, by_chance, seconds = [], [], 0, [], []
    for target, kinds in zip(targets, allowed, strict=True):
        started = time.process_time()
        found = find_exact(
            pipeline,
            target.squeeze(),
            gates=GatePool(names[kinds].tolist()).names,
            max_tries=options.tries,
            max_seconds=options.seconds,
            objective=options.objective or "gates",
            stop_at_first=options.objective is None,
            seed=options.seed,
        )
        seconds.append(time.process_time() - started)
        nearest.append(found.best.infidelity if found.best else 1.0)
        if found.circuits:
            costs.append([cost(found.circuits[0].circuit) for cost in COSTS.values()])
            wrong += by_qiskit(found.circuits[0].circuit, target) > _WRONG
        by_chance.append(chance(pipeline.table, kinds, length, options.tries, target, rng))
    least, random = np.array(nearest), np.array(by_chance)
    solved = int((least < EXACT_ANGLES).sum())
    nothing = np.eye(targets.shape[1], targets.shape[2], dtype=np.complex128)
    empty = infidelities(np.broadcast_to(nothing, targets.shape), targets)
    return {
        "gates": length,
        "targets": len(targets),
        "solved": solved / len(targets),
        "interval": wilson_interval(solved, len(targets)),
        "below": {f"{level:g}": float((least < level).mean()) for level in LEVELS},
        "chance": float((random < EXACT_ANGLES).mean()),
        "chance_below": {f"{level:g}": float((random < level).mean()) for level in LEVELS},
        "empty_infidelity": float(empty.mean()),
        "mean_costs": dict(zip(COSTS, np.mean(costs, axis=0).tolist(), strict=True)) if costs else {},
        "called_exact": len(costs),
        "wrong_by_qiskit": wrong,
        "seconds": float(np.mean(seconds)),
        "most_seconds": float(np.max(seconds)),
    }


def verify_exact(model: str, wanted: int, seed: int) -> None:
    """Ask Qiskit of so many distinct circuits that searches call exact, and print how many are not."""
    pipeline = load_pipeline(model)
    rng = np.random.default_rng((seed, 1))
    names, task = np.array(pipeline.gate_pool.names), pipeline.task
    assert isinstance(task, TargetTask)
    largest, checked, wrong = 0.0, 0, 0
    while checked < wanted:
        ids, angles, allowed = draw(pipeline.table, int(rng.integers(2, 9)), 1, rng, isinstance(task, StateTask))
        target = task.targets_of(ids, pipeline.table, angles)[0]
        gates = GatePool(names[allowed[0]].tolist()).names
        found = find_exact(pipeline, target.squeeze(), gates=gates, num_circuits=200, max_tries=256, seed=seed)
        distances = [by_qiskit(circuit, target) for circuit in found.found][: wanted - checked]
        checked += len(distances)
        wrong += sum(distance > _WRONG for distance in distances)
        largest = max([largest, *distances])
    print(f"{checked:,} circuits called exact: {wrong} above {_WRONG:g} by Qiskit, at most {largest:.1e}")


def main() -> None:
    """Measure each length and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--gates", default="2,4,6,8,10")
    parser.add_argument("--targets", type=int, default=50)
    parser.add_argument("--tries", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact", type=int, default=0)
    parser.add_argument("--objective", choices=COSTS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.exact:
        verify_exact(options.model, options.exact, options.seed)
        return
    rows = []
    print("gates  solved (95 %)            chance   below 1e-2  gates found  seconds  wrong  empty circuit")
    for length in map(int, options.gates.split(",")):
        row = measure(options.model, length, options)
        rows.append(row)
        low, high = (100 * bound for bound in row["interval"])
        costs = {name: f"{cost:.2f}" for name, cost in row["mean_costs"].items()}
        found = costs.get("gates", "-")
        print(
            f"{length:5d}  {100 * row['solved']:5.1f} % ({low:.1f} to {high:.1f})".ljust(32)
            + f"{100 * row['chance']:5.1f} %  {100 * row['below']['0.01']:8.1f} %  {found:>11}  {row['seconds']:7.2f}"
            + f"  {row['wrong_by_qiskit']:5d}  {row['empty_infidelity']:13.2f}",
            flush=True,
        )
        if options.objective:
            print(f"       {', '.join(f'{name} {cost}' for name, cost in costs.items())}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": None}, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
