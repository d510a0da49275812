"""The options of searches in Python: their names and types, and their translation into the arguments of a search.

`api` uses them, and type checkers and editors know them from its functions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from quantum_diffusion.arguments import check_count, check_kind, check_texts, shown
from quantum_diffusion.config.schema import SamplingConfig, SearchMethod, TargetObjective
from quantum_diffusion.config.validation import validate
from quantum_diffusion.errors import ConfigError, unknown_name
from quantum_diffusion.pipeline.editing import Edit


class SamplingOptions(TypedDict, total=False):
    """How a model samples: the keys `model_params.*` of the commands, described in docs/configuration.md."""

    guidance_scale: float | None
    guidance_growth: float | None
    guidance_mode: str | None
    sample_steps: int | None
    scheduler: str | None
    temperature: float | None
    top_p: float | None
    order: str | None
    auto_batch_size: int
    n_jobs: int
    engine: str


class SearchOptions(SamplingOptions, total=False):
    """Options of every search, besides how the model samples.

    Attributes:
        num: Number of distinct circuits wanted (default: 4 for `sample`, 1 otherwise); the result may hold fewer.
        max_gates: Maximum number of gates, counted after simplification for targets; None uses the model's limit.
        max_tries: Maximum number of samples, or maximum beam width (1024); ignored when `max_seconds` is given.
        max_seconds: Time limit in seconds, used in full to look for cheaper circuits; None stops as soon as enough
            circuits are found.
        objective: The cost to minimise: "gates", "two_qubit_gates", "t_count", "depth", or several with weights,
            {"gates": 1, "t_count": 10}, also of gates by name; for `prepare` also "energy", that of a target
            "ground:HAMILTONIAN".
        coupling: Pairs of qubits that gates may act on; None allows all.
        fixed_qubits: Qubits that no gate may touch; None allows all.
        edit: Further constraints (`Edit`), such as gates to keep.
        seed: Seed of the search and of random targets; None draws one.
        progress: Called with (tries spent, maximum number of tries).
    """

    num: int
    max_gates: int | None
    max_tries: int
    max_seconds: float | None
    objective: TargetObjective
    coupling: Sequence[tuple[int, int]] | None
    fixed_qubits: Sequence[int] | None
    edit: Edit | None
    seed: int | None
    progress: Callable[[int, int], None] | None


class SampleOptions(SearchOptions, total=False):
    """Options of `sample`, in addition to `SearchOptions`.

    Attributes:
        negative_srv: Vector that guidance leads away from; None leads away from none in particular.
        simplify: Whether to simplify circuits (default: True).
    """

    negative_srv: Sequence[int] | None
    simplify: bool


class TargetOptions(SearchOptions, total=False):
    """Options of `compile` and `prepare`, in addition to `SearchOptions`.

    Attributes:
        negative: Target that guidance leads away from, given like the target; needs a `guidance_scale` other than 1.
        gates: Gates that circuits may use; None allows all of the model's gates. Of the models that come with the
            package, those of gates with angles answer if gates with angles are named, or if none are named and the
            others do not make the target.
        tolerance: Largest infidelity to accept, in [0, 1); 0 requires exact circuits (infidelity below 1e-6, with
            angles below 1e-10). For energies, how far above the lowest possible one, as a share of the range of all.
        search: "beam", "sampling", or "auto", which uses beam search where possible.
    """

    negative: object
    gates: Sequence[str] | None
    tolerance: float
    search: SearchMethod


def search_arguments(wanted: Mapping[str, Any], known: type) -> dict[str, Any]:
    """Turn a caller's options into the arguments of a search.

    Args:
        wanted: The options.
        known: `SampleOptions` or `TargetOptions`, which has their names.

    Raises:
        ConfigError: A name is unknown, or a value is wrong.
    """
    names = known.__annotations__
    for name in wanted:
        if name in ("device", "weights"):
            raise ConfigError(f"{name} belongs to qd.load: load the model with qd.load(MODEL, {name}=...)")
        if name not in names:
            raise ConfigError(unknown_name("option", name, names))
    sampling = SamplingOptions.__annotations__
    given = {name: value for name, value in wanted.items() if name not in sampling}
    given["options"] = validate(SamplingConfig, {k: v for k, v in wanted.items() if k in sampling}, "options")
    seed = given.get("seed")
    given["seed"] = secrets.randbits(31) if seed is None else check_count(seed, "seed")
    given |= _edited(given)
    if given.get("gates") is not None:
        given["gates"] = check_texts(given["gates"], "gates", '["h", "cx"]')
    if given.get("progress") is not None and not callable(given["progress"]):
        raise ConfigError(f"progress is {shown(given['progress'])}: give a function of (tries spent, maximum tries)")
    if "simplify" in given:
        check_kind(given["simplify"], bool, "simplify")
    if "num" in given:
        given["num_circuits"] = given.pop("num")
    return given


def _edited(given: dict[str, Any]) -> Mapping[str, Any]:
    """Take the constraints that have a name of their own out of the options; return an edit with them, if any."""
    own = {name: given.pop(name) for name in ("coupling", "fixed_qubits") if given.get(name) is not None}
    edit = check_kind(given.get("edit") or Edit(), Edit, "edit")
    for name in own:
        if getattr(edit, name):
            raise ConfigError(f"{name} and edit both give {name}: leave out one of them")
    return {"edit": replace(edit, **own)} if own else {}
