"""The section of data sets: what circuits to make, and how they are labelled.

`generate_dataset.py` reads it, and so does training on a stream of fresh circuits.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from quantum_diffusion.config.schema.values import Engine, Jobs, NonNegative, PathText, Positive, Seed
from quantum_diffusion.config.validation import Rule, Section, refuse

Simplification = Literal["none", "rules", "qiskit"]

MOST_UNITARY_QUBITS, MOST_STATE_QUBITS = 8, 12


class DatasetConfig(Section):
    """What `generate_dataset.py` makes (keys `datasets.*`)."""

    gate_set: Annotated[tuple[str, ...], Field(min_length=1)] = ("h", "cx")
    """Gates of the vocabulary, in token order: any of h x y z s t sdg tdg cx cy cz swap ccx cswap."""
    generation_gate_set: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Gates circuits are drawn from, a subset of gate_set; null means all of them."""
    num_qubits: Annotated[int, Field(ge=1, le=20)] = 3
    """Qubits of every circuit."""
    num_samples: Positive = 100_000
    """Distinct circuits to make, before balance_quantile takes some away; fewer are delivered when fewer exist."""
    min_gates: NonNegative = 2
    """Fewest gates of a circuit, counted after simplification."""
    max_gates: Annotated[int, Field(ge=1, le=1024)] = 16
    """Most gates of a circuit, and the time steps of the data set."""
    condition_type: Literal["SRV", "UNITARY", "STATE", "BOTH"] = "SRV"
    """What circuits are labelled with: the Schmidt rank vector; the unitary, with prompts that name a random subset of
    the gates for each circuit; the state that they make of |0..0>, with such prompts, too; or (BOTH) one data set of
    each of the first two, in the sub-folders srv and unitary."""
    optimize: Simplification = "rules"
    """Simplification before labelling: "rules" is our own and exact, "qiskit" calls transpile at level 3 (slow)."""
    sampling: Literal["natural", "stratified"] = "natural"
    """stratified keeps gates from entangling other qubits than a random set, of sizes that a pilot chooses (SRV only):
    rare labels come more often, so that a balanced data set (balance_max) throws fewer circuits away."""
    seed: Seed = 0
    """The same configuration and seed give the same bytes, whatever n_jobs is."""
    n_jobs: Jobs = -1
    """Worker processes; -1 takes every core, and so does a number beyond them on this machine."""
    engine: Engine = "local"
    """Where workers run: "local" uses processes on this machine, "ray" the cluster of RAY_ADDRESS (extra ray)."""
    max_memory: Annotated[float, Field(gt=0, le=1e5)] = 4.0
    """GiB the main process may use for circuits and keys; what goes beyond lies on disk."""
    output_path: PathText = "./datasets/dataset"
    """Folder to write; it must not hold another data set."""
    balance_max: Positive | None = None
    """Most circuits of one prompt; null keeps the natural distribution."""
    balance_quantile: Annotated[float, Field(ge=0, le=1)] | None = None
    """Every length of a prompt keeps at most this quantile of the prompt's counts of lengths; null keeps all."""
    exclude: PathText | None = None
    """Folder of a data set whose circuits are left out, e.g. of training when this one is for testing; with
    condition_type UNITARY or STATE every circuit with one of its unitaries or states is."""
    coupling: tuple[tuple[int, int], ...] | None = None
    """Pairs of connected qubits; null connects all."""
    overwrite: bool = False
    """Replace a data set that is already in output_path; a folder with anything else in it is never replaced."""

    @model_validator(mode="after")
    def _check(self) -> DatasetConfig:
        refuse(_rules(self))
        return self


def _rules(config: DatasetConfig) -> tuple[Rule, ...]:
    unknown = [name for name in config.generation_gate_set or () if name not in config.gate_set]
    return (
        Rule(
            config.min_gates > config.max_gates,
            f"min_gates ({config.min_gates}) is larger than max_gates ({config.max_gates}): swap or raise one",
        ),
        Rule(
            bool(unknown),
            f"generation_gate_set has {unknown}, which gate_set {list(config.gate_set)} lacks: add them there",
        ),
        Rule(
            config.sampling == "stratified" and config.condition_type != "SRV",
            f"sampling=stratified aims at Schmidt rank vectors, but condition_type is {config.condition_type}: use "
            "sampling=natural",
        ),
        Rule(
            config.condition_type in ("UNITARY", "BOTH") and config.num_qubits > MOST_UNITARY_QUBITS,
            f"condition_type={config.condition_type} stores 2 x 4^n numbers a circuit: num_qubits is "
            f"{config.num_qubits}, give {MOST_UNITARY_QUBITS} or less",
        ),
        Rule(
            config.condition_type == "STATE" and config.num_qubits > MOST_STATE_QUBITS,
            f"condition_type=STATE stores 2 x 2^n numbers a circuit: num_qubits is {config.num_qubits}, give "
            f"{MOST_STATE_QUBITS} or less",
        ),
    )
