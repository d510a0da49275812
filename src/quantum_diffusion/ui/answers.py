"""The API behind the page: plain values in, plain values out, through the same functions as the commands.

Every circuit is described by the results of its simulation.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from quantum_diffusion.api import Model
from quantum_diffusion.circuits.angles import angle_in_words
from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import depth, two_qubit_gates
from quantum_diffusion.circuits.gates import GATES, Matrix
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, counted, unknown_name
from quantum_diffusion.evaluation.report.drawings import in_words, layered
from quantum_diffusion.search import states, unitaries
from quantum_diffusion.search.compilation import Compilation
from quantum_diffusion.search.compiling import open_for_target
from quantum_diffusion.search.files import read_target
from quantum_diffusion.search.sampling import FoundCircuits
from quantum_diffusion.ui.models import Settings, described_models, open_model
from quantum_diffusion.ui.replay import replay_entanglement, replay_state, replay_unitary
from quantum_diffusion.ui.requests import FindRequest, PictureRequest, StepsRequest, TargetRequest, read_request
from quantum_diffusion.ui.script import python_script

_NAMES = {"compile": unitaries.NAMES, "prepare": states.NAMES}
_MOST_LETTERS = 600
"""Maximum length of a message, which may quote a whole file."""
_PAIR = re.compile(r"(\d{1,3})-(\d{1,3})", re.ASCII)


def models(settings: Settings) -> dict[str, Any]:
    """Return the models on offer, and the limits of a search.

    Raises:
        CheckpointError: The folder of models does not exist.
    """
    return {"models": described_models(settings), "max_seconds": settings.max_seconds}


def find(body: Any, settings: Settings, is_stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Search for circuits.

    Args:
        body: A `FindRequest` as plain values.
        settings: The models on offer and the time limit.
        is_stopped: Polled during the search; once it returns True, the search ends with the circuits found so far.

    Raises:
        QuantumDiffusionError: The request is invalid, or the model cannot be used.
    """
    request = read_request(FindRequest, body)
    if request.max_seconds is not None and request.max_seconds > settings.max_seconds:
        raise ConfigError(
            f"max_seconds is {request.max_seconds:g}, but this page searches for at most {settings.max_seconds:g} s: "
            f"give less, or start the page with ui.max_seconds={request.max_seconds:g}"
        )
    model = open_model(request.model, settings)
    command = model.pipeline.task.command
    seed = secrets.randbelow(10**6) if request.seed is None else request.seed
    options = {**_options(request, model), "seed": seed}
    asked = _asked(request, command, model)
    deadline = time.perf_counter() + settings.max_seconds

    def progress(done: int, most: int) -> None:
        if is_stopped() or time.perf_counter() > deadline:
            raise KeyboardInterrupt  # like Ctrl-C: searches then return what they have found

    found: FoundCircuits | Compilation = getattr(model, command)(asked, **options, progress=progress)
    nearest = found.best if isinstance(found, Compilation) and not found.circuits else None
    return {
        "command": command,
        "seed": seed,
        "seconds": round(found.seconds, 2),
        "summary": found.summary,
        "problem": _problem(found, request.num_circuits, settings, is_stopped()),
        "circuits": [{**_drawn(circuit), **_label(found, row), **_costs(circuit)} for row, circuit in enumerate(found)],
        "nearest": nearest
        and {
            **_drawn(nearest.circuit),
            "infidelity": nearest.infidelity,
            "exact": nearest.is_exact,
            **_costs(nearest.circuit),
        },
        "python": python_script(request, command, options),
    }


def steps(body: Any, settings: Settings) -> dict[str, Any]:
    """Replay a circuit gate by gate: the effect of each gate, and the remaining target after it.

    Args:
        body: A `StepsRequest` as plain values.
        settings: What may be asked.

    Raises:
        QuantumDiffusionError: The request is invalid, or the circuit does not fit the search.
    """
    request = read_request(StepsRequest, body)
    circuit, asked = Circuit.from_qasm(request.qasm), request.find
    model = open_model(asked.model, settings)
    command = model.pipeline.task.command
    if circuit.num_qubits > model.pipeline.config.num_qubits:
        raise ConfigError(
            f"the circuit has {circuit.num_qubits} qubits, the model {model.pipeline.config.num_qubits}: "
            "replay one of its circuits"
        )
    if command == "sample":
        return {"gates": _gates(circuit), **replay_entanglement(circuit)}
    target = _target_array(asked, model)
    if len(target) != 2**circuit.num_qubits:
        raise ConfigError(f"the circuit has {circuit.num_qubits} qubits, unlike the target: replay one that was found")
    replay = replay_unitary if command == "compile" else replay_state
    return {"gates": _gates(circuit), **replay(circuit, target)}


def picture(body: Any) -> bytes:
    """Return a circuit as a PNG file.

    Raises:
        QuantumDiffusionError: The request is wrong, or the circuit cannot be read.
    """
    return Circuit.from_qasm(read_request(PictureRequest, body).qasm)._repr_png_()


def told(problem: QuantumDiffusionError) -> str:
    """Return a message for the page: on one line, with keys without their sections.

    Example:
        >>> told(ConfigError("add ccx to compile.gates"))
        'add ccx to gates'
    """
    text = " ".join(str(problem).split())
    text = text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 100]} ... {text[-95:]}"
    return re.sub(r"\b(request|find|sample|compile|prepare|edit)\.(?=[a-z])", "", text)


# -------------------------------------------------------------------------------------------------- requests


def _options(request: FindRequest, model: Model) -> dict[str, Any]:
    """Return the search arguments that differ from their defaults, by Python name."""
    command = model.pipeline.task.command
    if command == "sample" and request.gates is not None:
        raise ConfigError("a model of Schmidt rank vectors uses all of its gates: leave out gates")
    if command != "sample" and request.guidance_scale is not None:
        raise ConfigError("guidance_scale is for Schmidt rank vectors: leave it out")
    size = len(request.srv or ()) if command == "sample" else model.pipeline.config.num_qubits
    given = {
        "gates": None if request.gates is None else list(request.gates),
        "coupling": read_coupling(request.coupling, size),
        "guidance_scale": request.guidance_scale,
        "max_gates": request.max_gates,
        "max_seconds": request.max_seconds,
        "objective": None if request.objective == "gates" else request.objective,
    }
    return {"num": request.num_circuits, **{name: value for name, value in given.items() if value is not None}}


def read_coupling(text: str, num_qubits: int) -> list[tuple[int, int]] | None:
    """Read pairs of qubits as people write them; None stands for all pairs.

    Raises:
        ConfigError: It cannot be read.

    Example:
        >>> read_coupling("0-1, 1-2", 3), read_coupling("line", 4), read_coupling("all", 3)
        ([(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)], None)
    """
    word = text.strip().lower()
    if word in ("", "all"):
        return None
    if word == "line":
        return [(qubit, qubit + 1) for qubit in range(num_qubits - 1)]
    parts = re.sub(r"\s?-\s?", "-", " ".join(word.split())).replace(",", " ").replace(";", " ").split()
    pairs = [_PAIR.fullmatch(part) for part in parts]
    if not pairs or None in pairs:
        raise ConfigError(
            f"cannot read the coupling {text[:60]!r}: give pairs of qubits such as 0-1, 1-2; or line, or all"
        )
    return [(int(pair[1]), int(pair[2])) for pair in pairs if pair]


def _asked(request: FindRequest, command: str, model: Model) -> object:
    """Return the vector or target of a request: a list, a name, an array or a circuit.

    Raises:
        ConfigError: It is missing or cannot be read.
    """
    if command == "sample":
        if request.srv is None or request.target is not None:
            raise ConfigError(f"{request.model!r} answers Schmidt rank vectors: give srv, e.g. [1,2,2], and no target")
        return list(request.srv)
    if request.target is None or request.srv is not None:
        raise ConfigError(f"{request.model!r} answers {model.pipeline.task.asked}: give a target, and no srv")
    return _read_target(request.target, command)


def _read_target(target: TargetRequest, command: str) -> object:
    if target.name is not None:
        name = target.name.strip()
        if name.partition(":")[0] not in _NAMES[command]:  # never a path, which would read files of this machine
            raise ConfigError(f"{unknown_name('target', name, _NAMES[command])}; or give an OpenQASM program or a file")
        return name
    if target.qasm is not None:
        return _named("the program", lambda: read_target(str(target.qasm).encode("utf-8", "replace"), ".qasm"))
    assert target.file is not None
    assert target.content is not None
    try:
        content = base64.b64decode(target.content, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"{target.file!r}: its content is not in base64: upload the file again") from None
    return _named(repr(target.file), lambda: read_target(content, PurePath(str(target.file)).suffix))


def _named(what: str, read: Callable[[], object]) -> object:
    """Read something; error messages begin with its name."""
    try:
        return read()
    except QuantumDiffusionError as problem:
        raise type(problem)(f"{what}: {problem}") from problem


def _target_array(request: FindRequest, model: Model) -> Matrix:
    """Return the target of a search as an array."""
    if request.seed is None:
        raise ConfigError("find.seed is missing: give the one with which the search answered")
    command = model.pipeline.task.command
    opened = open_for_target(
        command,
        [Path(request.model)],
        _asked(request, command, model),
        lambda _: model.pipeline,
        gates=request.gates,
        max_gates=request.max_gates,
        seed=request.seed,
    )
    return opened.target


# --------------------------------------------------------------------------------------------------- answers


def _problem(found: FoundCircuits | Compilation, wanted: int, settings: Settings, is_stopped: bool) -> str | None:
    """Say why there are too few circuits, and what to do."""
    if len(found) >= wanted:
        return None
    problem = f"found {len(found)} of {counted(wanted, 'circuit')}"
    if is_stopped:
        return f"{problem} before the search was stopped"
    if found.interrupted:
        return f"{problem} in {settings.max_seconds:g} s, the time limit of this page: see ui.max_seconds"
    mend = "allow more time or more gates" if not len(found) else "ask for fewer circuits or allow more time"
    if isinstance(found, Compilation) and found.num_too_long:
        mend = f"{counted(found.num_too_long, 'exact circuit')} had too many gates: raise the limit on gates"
    return f"{problem}; {mend}"


def _label(found: FoundCircuits | Compilation, row: int) -> dict[str, Any]:
    """Return the label of a circuit, by simulation."""
    if isinstance(found, FoundCircuits):
        return {"srv": QiskitBackend().schmidt_rank_vector(found[row])}
    return dict(found.figures(row))


def _costs(circuit: Circuit) -> dict[str, Any]:
    return {"num_gates": len(circuit), "two_qubit_gates": two_qubit_gates(circuit), "depth": depth(circuit)}


def _drawn(circuit: Circuit) -> dict[str, Any]:
    return {
        "num_qubits": circuit.num_qubits,
        "gates": _gates(circuit),
        "words": in_words(circuit),
        "qasm": circuit.to_qasm2(),
    }


def _gates(circuit: Circuit) -> list[dict[str, Any]]:
    """Return the gates as a drawing needs them; `base` is the gate without its controls, x of ccx."""
    return [
        {
            "name": one.gate,
            "base": one.gate[GATES[one.gate].num_controls :],
            "angles": [angle_in_words(angle) for angle in one.angles],
            "controls": list(one.controls),
            "targets": list(one.targets),
            "layer": layer,
        }
        for one, layer in zip(circuit.instructions, layered(circuit), strict=True)
    ]
