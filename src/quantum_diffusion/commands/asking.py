"""The commands sample, compile, prepare and refine: they print and save the circuits found, and explain a shortfall."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantum_diffusion.circuits.gates import have_angles
from quantum_diffusion.config.schema import RefineConfig, SampleConfig, TargetSearchConfig
from quantum_diffusion.errors import counted
from quantum_diffusion.interrupts import INTERRUPTED
from quantum_diffusion.jobs import NOT_FOUND, Outcome

if TYPE_CHECKING:
    from quantum_diffusion.search.angles import LowestEnergy
    from quantum_diffusion.search.compilation import Compilation
    from quantum_diffusion.search.sampling import FoundCircuits


def sample(config: SampleConfig) -> Outcome:
    """Find verified circuits for a Schmidt rank vector."""
    from quantum_diffusion import console
    from quantum_diffusion.search.sampling import find_circuits, write_circuits

    with console.progress_bar("sampling", visible=True) as advance:
        found = find_circuits(config, advance)
    is_saved = config.save_folder is not None and bool(found.circuits)
    try:
        if is_saved:
            write_circuits(found, config)
    finally:  # show the circuits even if saving fails
        console.show_circuits(found.circuits)
        console.out.print(f"\n{found.summary}")
    _show_kept(found)
    if is_saved:
        console.out.print(_written(Path(str(config.save_folder))))
    report = {"srv": config.srv, "circuits": found.rows(), "num_sampled": found.num_sampled}
    return _complain(config, "sample", found, report)


def find_for_target(config: TargetSearchConfig) -> Outcome:
    """Find verified circuits for a unitary or a state."""
    from quantum_diffusion import console
    from quantum_diffusion.search.compiling import described, find_for_target, write_compilation

    with console.progress_bar("searching", visible=True) as advance:
        found = find_for_target(config, advance)
    shown = found.circuits or ((found.best,) if found.best else ())
    is_saved = config.save_folder is not None and bool(shown)
    try:
        if is_saved:
            write_compilation(found, config)
    finally:
        if shown:
            console.show_compilation(shown)
        console.out.print(f"\n{_result(config, found)} ({found.effort}; {found.seconds:.1f} s)")
    if config.gates is None and config.model_dir is None and have_angles(found.gates):
        names = ", ".join(found.gates)
        console.out.print(f"gates without angles do not make the target exactly, so any of these were allowed: {names}")
    _show_kept(found)
    if is_saved:
        console.out.print(_written(Path(str(config.save_folder))))
    nearest_found = None if found.best is None else {**described(found.best), "qasm": found.best.circuit.to_qasm2()}
    report = {
        "target": config.target,
        "circuits": found.rows(),
        "nearest": nearest_found,
        "gates": list(found.gates),
        "search": found.search,
        "model": found.model,
        **asdict(found.measure),
    }
    return _complain(config, config.command, found, report, found.num_too_long)


def refine(config: RefineConfig) -> Outcome:
    """Find the angles of a given circuit."""
    from quantum_diffusion import console
    from quantum_diffusion.search.angles import LowestEnergy, outcome_in_words, refine_file, write_refined
    from quantum_diffusion.search.compiling import described

    found = refine_file(config)
    if isinstance(found, LowestEnergy):
        return _lowest_energy(found, config)
    assert found.best is not None
    try:
        if config.save_folder is not None:
            write_refined(found, config)
    finally:
        console.show_compilation((found.best,))
        console.out.print(f"\n{outcome_in_words(found)}")
    if config.save_folder is not None:
        console.out.print(_written(Path(config.save_folder)))
    report = {
        "target": config.target,
        "state": config.state,
        "circuits": found.rows(),
        "nearest": {**described(found.best), "qasm": found.best.circuit.to_qasm2()},
        "seconds": found.seconds,
        "save_folder": config.save_folder,
    }
    if found.circuits:
        return Outcome(report=report)
    problem = (
        f"the best angles have infidelity {found.best.infidelity:.2g}: raise refine.starts, "
        f"{'set refine.tolerance above it, ' * (found.best.infidelity < _USELESS)}or give a circuit with more gates"
    )
    return _not_found(problem, report)


def _lowest_energy(found: LowestEnergy, config: RefineConfig) -> Outcome:
    from quantum_diffusion import console
    from quantum_diffusion.search.angles import write_refined

    try:
        if config.save_folder is not None:
            write_refined(found, config)
    finally:
        console.out.print(str(found), highlight=False)
    if config.save_folder is not None:
        console.out.print(_written(Path(config.save_folder)))
    report = {
        "hamiltonian": config.energy,
        "energy": found.energy,
        "lowest": found.lowest,
        "qasm": found.circuit.to_qasm2(),
        "seconds": found.seconds,
        "save_folder": config.save_folder,
    }
    if found.is_lowest:
        return Outcome(report=report)
    problem = (
        f"the energy is {found.excess:.2g} of the range above the lowest: raise refine.starts, set refine.tolerance "
        "above it, or give a circuit with more gates"
    )
    return _not_found(problem, report)


def _not_found(problem: str, report: dict[str, Any]) -> Outcome:
    """Print why nothing was found, and return it as an outcome with the report."""
    print(f"error: {problem}", file=sys.stderr)
    return Outcome(NOT_FOUND, {"error": problem, **report})


def _result(config: TargetSearchConfig, found: Compilation) -> str:
    """Say how many circuits were found for a target."""
    exact = "" if config.tolerance else "exact "
    within = f" with {found.measure.name} {config.tolerance:g} or less" if config.tolerance else ""
    if not found.circuits:
        nearest = "; the circuit shown is the nearest one" if found.best else ""
        if found.best and found.measure.best_effort:
            nearest = f"; the circuit shown is the best one: {found.best.words}"
        return f"found no {exact}circuit for {config.target!r}{within}{nearest}"
    return f"found {counted(len(found.circuits), f'distinct {exact}circuit')} for {config.target!r}{within}"


def _written(folder: Path) -> str:
    """Say what a search has written, without a picture that could not be drawn."""
    from quantum_diffusion.search.saving import PICTURE_FILE

    picture = ", a picture" if (folder / PICTURE_FILE).is_file() else ""
    return f"the circuits{picture} and a summary are in {folder}"


_USELESS = 0.9
"""Infidelity beyond which no one would accept a circuit."""

_MANY_ALIKE = 20
"""Exact samples per circuit found beyond which more tries are unlikely to find another."""


def _show_kept(found: FoundCircuits | Compilation) -> None:
    if found.kept:
        from quantum_diffusion import console

        console.out.print(f"the kept gates at the beginning {found.kept}")


def _may_fall_short(found: Compilation) -> bool:
    """Return whether a circuit that falls short is likely to be of use."""
    if found.best is None or found.best.infidelity > _USELESS:
        return False
    return bool(found.tolerance) or found.search == "refinement" or found.measure.best_effort


def _beyond_angles(config: TargetSearchConfig, found: Compilation) -> bool:
    """Tell whether models of gates with angles were not asked because the target has too many qubits for them."""
    from quantum_diffusion.pretrained import QUBITS_WITH_ANGLES

    if config.model_dir is not None or config.gates is not None or found.best is None:
        return False
    return found.best.circuit.num_qubits > QUBITS_WITH_ANGLES[config.command]


def _complain(
    config: SampleConfig | TargetSearchConfig,
    section: str,
    found: FoundCircuits | Compilation,
    report: Mapping[str, Any],
    num_too_long: int = 0,
) -> Outcome:
    """Return the outcome of a search; if it found too few circuits, print why and what to do."""
    from quantum_diffusion.search.choosing import limit_of_angles
    from quantum_diffusion.search.compilation import Compilation

    report = {**report, "num_exact": found.num_exact, "seconds": found.seconds, "save_folder": config.save_folder}
    if found.interrupted:
        print("interrupted: these are the results so far", file=sys.stderr)
        return Outcome(INTERRUPTED, report)
    if len(found.circuits) >= config.num_circuits:
        return Outcome(report=report)
    wanted, tries = counted(config.num_circuits, "circuit"), counted(found.num_sampled, "try", "tries")
    problem = f"found {len(found.circuits)} of {wanted} in {tries}"
    mends = [f"raise {section}.{'max_seconds' if config.max_seconds else 'max_tries'}"]
    num_alike = found.num_exact - num_too_long
    if found.circuits:
        problem += f", {counted(num_alike, 'exact sample')} gave no other"
    if num_alike > _MANY_ALIKE * len(found.circuits) > 0:
        mends = []  # more tries would give the same circuits again
    if num_too_long:
        problem += f", {counted(num_too_long, 'exact sample')} had more than {section}.max_gates={config.max_gates}"
        mends.insert(0, f"raise {section}.max_gates")
    if found.circuits:
        mends.append(f"lower {section}.num_circuits to {len(found.circuits)}")
    elif isinstance(found, Compilation) and found.never_exact and not found.tolerance:
        problem += ", and no circuit of these gates equals the target, whose entries they cannot make"
        enough = (
            "e.g. to 0.01" if found.best is None else f"above {found.best.infidelity:.2g}, that of the best circuit"
        )
        mends = [f"set {section}.tolerance, {enough}, to accept approximate circuits"]
    elif isinstance(found, Compilation) and _may_fall_short(found):
        assert found.best is not None
        name = found.measure.name
        mends.append(f"set {section}.tolerance above {found.best.infidelity:.2g}, the {name} of the best circuit")
    problem = f"{problem}: {' or '.join(mends)}"
    if isinstance(config, TargetSearchConfig) and isinstance(found, Compilation) and _beyond_angles(config, found):
        problem += limit_of_angles(config.command)
    return _not_found(problem, report)
