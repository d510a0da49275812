"""The section of data sets: which circuits to generate and how to label them.

`quantum-diffusion generate` reads it, and so does training on a stream of fresh circuits.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from quantum_diffusion.config.schema.values import Engine, Jobs, NonNegative, PathText, Positive, Seed
from quantum_diffusion.config.validation import Rule, Section, refuse

Simplification = Literal["none", "rules", "qiskit"]

AngleKind = Literal["uniform", "eighths", "small", "repeated"]

MOST_UNITARY_QUBITS, MOST_STATE_QUBITS = 8, 12


class DatasetConfig(Section):
    """What `quantum-diffusion generate` makes (keys `datasets.*`)."""

    gate_set: Annotated[tuple[str, ...], Field(min_length=1)] = ("h", "cx")
    """Gates of the vocabulary, in token order: any of h x y z s t sdg tdg sx sxdg cx cy cz swap ccx cswap, and with
    angles rx ry rz p u cp crz rzz (UNITARY and STATE only)."""
    generation_gate_set: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Gates that circuits are drawn from, a subset of gate_set; null uses all of them."""
    num_qubits: Annotated[int, Field(ge=1, le=20)] = 3
    """Qubits of every circuit."""
    num_samples: Positive = 100_000
    """Distinct circuits to generate, before balance_quantile removes some; fewer if fewer exist."""
    min_gates: NonNegative = 2
    """Minimum number of gates of a circuit, counted after simplification."""
    max_gates: Annotated[int, Field(ge=1, le=1024)] = 16
    """Maximum number of gates of a circuit, which is also the number of time steps of the data set."""
    condition_type: Literal["SRV", "UNITARY", "STATE", "BOTH"] = "SRV"
    """Label of the circuits: SRV, the Schmidt rank vector; UNITARY, the unitary, with a prompt per circuit that lists
    allowed gates; STATE, the state that the circuit prepares from |0..0>, with such prompts too; or BOTH, one data set
    each of SRV and UNITARY, in the sub-folders srv and unitary."""
    optimize: Simplification = "rules"
    """Simplification before labelling: rules is our own, exact one; qiskit calls transpile at level 3 (slow)."""
    sampling: Literal["natural", "stratified"] = "natural"
    """stratified (SRV only) lets each circuit entangle only a random set of qubits, with set sizes chosen in a pilot
    run: rare labels become more frequent, so that balancing (balance_max) discards fewer circuits."""
    angles: Annotated[tuple[AngleKind, ...], Field(min_length=1)] = ("uniform",)
    """How angles are drawn, for gates with angles: each circuit draws one of these kinds, of which a kind may be listed
    more than once. uniform: from the whole period; eighths: multiples of pi/4; small: near zero; repeated: uniform, but
    the circuit repeats its first two to four gates, as a Trotter formula does."""
    seed: Seed = 0
    """Random seed; the same configuration and seed give the same bytes for any n_jobs."""
    n_jobs: Jobs = -1
    """Worker processes; -1 uses every core, and larger numbers are capped at the number of cores on this machine."""
    engine: Engine = "local"
    """Where workers run: local uses processes on this machine, ray the cluster at RAY_ADDRESS (extra ray)."""
    max_memory: Annotated[float, Field(gt=0, le=1e5)] = 4.0
    """Memory in GiB that the main process may use for circuits and keys; the rest goes to disk."""
    output_path: PathText = "./datasets/dataset"
    """Folder to write to; it must not hold another data set."""
    balance_max: Positive | None = None
    """Maximum number of circuits per prompt; null keeps the natural distribution."""
    balance_quantile: Annotated[float, Field(ge=0, le=1)] | None = None
    """Cap on circuits of each length of a prompt: this quantile of the prompt's counts by length; null keeps all."""
    exclude: PathText | None = None
    """Folder of a data set whose circuits are left out, e.g. the training data of a test set; with condition_type
    UNITARY or STATE, every circuit with one of its unitaries or states is left out."""
    coupling: tuple[tuple[int, int], ...] | None = None
    """Pairs of connected qubits; null connects all."""
    overwrite: bool = False
    """Replace an existing data set in output_path; a folder that holds anything else is never replaced."""

    @model_validator(mode="after")
    def _check(self) -> DatasetConfig:
        refuse(_rules(self))
        return self


_WITH_ANGLES = ("rx", "ry", "rz", "p", "cp", "crz", "rzz", "u")
"""Stands here, too, because configurations know nothing of circuits; a test compares it with the table of gates."""


def _rules(config: DatasetConfig) -> tuple[Rule, ...]:
    unknown = [name for name in config.generation_gate_set or () if name not in config.gate_set]
    turning = [name for name in config.gate_set if name in _WITH_ANGLES]
    return (
        Rule(
            bool(turning) and config.condition_type in ("SRV", "BOTH"),
            f"gate_set has {turning}, gates with angles, whose circuits are labelled with unitaries or states: set "
            "condition_type=UNITARY or STATE",
        ),
        Rule(
            bool(turning) and config.optimize == "qiskit",
            f"optimize=qiskit is for gates without angles, and gate_set has {turning}: set optimize=rules",
        ),
        Rule(
            config.min_gates > config.max_gates,
            f"min_gates ({config.min_gates}) is larger than max_gates ({config.max_gates}): swap or raise one",
        ),
        Rule(
            bool(unknown),
            f"generation_gate_set has {unknown}, which gate_set {list(config.gate_set)} lacks: add them to gate_set",
        ),
        Rule(
            config.sampling == "stratified" and config.condition_type != "SRV",
            f"sampling=stratified is for Schmidt rank vectors, but condition_type is {config.condition_type}: use "
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
