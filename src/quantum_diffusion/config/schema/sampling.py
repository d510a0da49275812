"""The sections of sampling: how a model samples, and what is asked of it by label or by target.

The commands sample, compile and prepare read them; evaluation samples by the same keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from quantum_diffusion.config.schema.processes import GuidanceMode, Order, Sampler
from quantum_diffusion.config.schema.values import (
    Engine,
    Growth,
    Jobs,
    NonNegative,
    PathText,
    Positive,
    Rate,
    Scale,
    Seconds,
    Seed,
    Temperature,
    Text,
    TopP,
)
from quantum_diffusion.config.validation import Section
from quantum_diffusion.errors import unknown_name

Language = Literal["qasm2", "qasm3"]
Weights = Literal["averaged", "last"]
SearchMethod = Literal["auto", "beam", "sampling"]
Cost = Literal["gates", "two_qubit_gates", "t_count", "depth"]


def _check_objective(value: Any) -> Any:
    names = value if isinstance(value, Mapping) and value else [value]
    for name in names:
        if name not in get_args(Cost):
            raise ValueError(
                unknown_name("cost", name, get_args(Cost)) + "; or weigh several, e.g. {gates:1,two_qubit_gates:3}"
            )
    for name, weight in value.items() if isinstance(value, Mapping) else ():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ValueError(f"the weight of {name} is {weight!r}: give a number of at least 0")
    return value


SearchObjective = Annotated[Cost | dict[Cost, float], BeforeValidator(_check_objective)]
"""What makes a circuit cheap: one cost, or several with their weights."""


class SamplingConfig(Section):
    """How circuits are sampled (keys `model_params.*` of evaluation, sample, compile and prepare)."""

    guidance_scale: Scale | None = None
    """Strength of the prompt; 1 is none, null takes the model's own default."""
    guidance_growth: Growth | None = None
    """Gates over which guidance grows to its full strength (masked models only): the first are drawn more freely, so
    that circuits differ more; 0 guides all alike, null takes the model's own default."""
    guidance_mode: GuidanceMode | None = None
    """plain or rescaled (Gaussian models only); null takes the model's own default."""
    sample_steps: Positive | None = None
    """Denoising steps; null takes the model's own default."""
    scheduler: Sampler | None = None
    """Sampler; null takes the one the model was trained with."""
    temperature: Temperature | None = None
    """What log-probabilities are divided by (masked models only): below 1, likely gates come more often, and fewer
    different circuits; null takes the model's own default."""
    top_p: TopP | None = None
    """Draw among the likeliest gates of this probability together (masked models only); 1 is all, null takes the
    model's own default."""
    order: Order | None = None
    """Order of filling (masked models only): random; left_to_right; confidence, the step that the network is surest of;
    or surer_end, the first or the last gate that is missing, of which a beam makes use, too (policies for unitaries;
    left to right where gates are kept). null takes the model's own default."""
    weights: Weights = "averaged"
    """Weights to sample with: the average over training, or the last ones; the same for models without average. Read
    where a command loads the model; in Python it is load_pipeline that takes it, pipeline.sample does not."""
    auto_batch_size: Positive = 512
    """Circuits sampled at once; results do not depend on it."""
    n_jobs: Jobs = 1
    """Processes that sample; -1 takes every core (of the cluster, with Ray). Results do not depend on it."""
    engine: Engine = "local"
    """local (processes on this machine) or ray (the cluster of RAY_ADDRESS, or this machine), where n_jobs is not 1."""


class EditConfig(Section):
    """What sampling may not choose freely (keys `edit.*` of sample, compile, prepare); docs/editing.md has examples."""

    start: PathText | None = None
    """OpenQASM file with the circuit to edit; null writes from scratch."""
    keep: tuple[int, ...] = ()
    """Gates of start that stay as and where they are, by position from 0."""
    strength: Rate = 1.0
    """Share of the other steps (masked models) or of the noise (Gaussian models) that is redone; 1 redoes all."""
    coupling: tuple[tuple[int, int], ...] | None = None
    """Pairs of connected qubits, e.g. [[0,1],[1,2]]; null connects all."""
    fixed_qubits: tuple[int, ...] = ()
    """Qubits that no gate may touch."""
    min_gates: NonNegative = 0
    """Fewest gates."""


class SampleConfig(Section):
    """What `quantum-diffusion sample` does (keys `sample.*`)."""

    model_dir: PathText | None = None
    """Folder of a saved model, pretrained:NAME or hf://owner/name; null takes pretrained:srv, which comes with the
    package."""
    srv: Annotated[tuple[Annotated[int, Field(ge=1, le=2)], ...], Field(min_length=1)]
    """Schmidt rank vector to ask for, one entry a qubit: 1 separable, 2 entangled."""
    negative_srv: Annotated[tuple[Annotated[int, Field(ge=1, le=2)], ...], Field(min_length=1)] | None = None
    """Vector that guidance leads away from, of as many qubits; null leads away from no vector in particular. It takes a
    model_params.guidance_scale other than 1."""
    num_circuits: Positive = 4
    """Verified distinct circuits wanted."""
    max_tries: Positive = 1024
    """Most circuits to sample; with max_seconds there is no such bound."""
    max_seconds: Seconds | None = None
    """Time for the search, which goes on for cheaper circuits until then; null ends it when there are num_circuits. Of
    Ctrl-C, the best until then is the result."""
    objective: SearchObjective = "gates"
    """What the circuits are to have few of: gates; two_qubit_gates (one on k qubits counts k - 1 times); t_count (t and
    tdg); depth; or several with weights, {gates:1,t_count:10}. Of those found, the cheapest are given."""
    max_gates: Positive | None = None
    """Most gates; the model writes within this bound. null is the model's own limit."""
    simplify: bool = True
    """Simplify circuits, and verify them once more in that form; those with kept gates or edit.min_gates stay as they
    are written."""
    save_folder: PathText | None = None
    """Where to write the circuits, a picture and a summary; null only prints them."""
    format: Language = "qasm2"
    """How circuits are written to save_folder: OpenQASM 2 or 3."""
    seed: Seed = 0
    """Seed of the samples."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    model_params: SamplingConfig = SamplingConfig()
    edit: EditConfig = EditConfig()


class TargetSearchConfig(Section):
    """A search for circuits of a target; what that is, its commands say."""

    command: ClassVar[str]

    model_dir: PathText | None = None
    """Folder of a saved model that was trained on such targets."""
    target: PathText
    """What circuits have to do."""
    negative_target: PathText | None = None
    """What guidance leads away from, written like target; null leads away from no target in particular. It takes a
    model_params.guidance_scale other than 1, e.g. 2."""
    gates: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Gates that circuits may use; null allows all of the model's that fit the target."""
    max_gates: Positive | None = None
    """Drop longer circuits, counted after simplification; null keeps all."""
    search: SearchMethod = "auto"
    """beam keeps the likeliest beginnings that leave different things to do, more and more of them, and looks up the
    last gates (masked models whose steps are shown what is left to do); sampling writes whole circuits; auto takes a
    beam where the model and edit allow it."""
    max_tries: Positive = 1024
    """Most circuits to sample, where there is no max_seconds; of beams, the most beginnings that are kept of one
    length."""
    max_seconds: Seconds | None = None
    """Time for the search, which goes on for cheaper circuits until then; null ends it when there are num_circuits. Of
    Ctrl-C, the best until then is the result."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Infidelity up to which a circuit counts; 0 wants them exact (below 1e-6)."""
    objective: SearchObjective = "gates"
    """What the circuits are to have few of: gates; two_qubit_gates (one on k qubits counts k - 1 times); t_count (t and
    tdg); depth; or several with weights, {gates:1,t_count:10}."""
    num_circuits: Positive = 1
    """Distinct circuits wanted."""
    save_folder: PathText | None = None
    """Where to write the circuits, a picture and a summary; null only prints them."""
    format: Language = "qasm2"
    """How circuits are written to save_folder: OpenQASM 2 or 3."""
    seed: Seed = 0
    """Seed of the samples and of the target random."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    model_params: SamplingConfig = SamplingConfig()
    edit: EditConfig = EditConfig()


class CompileConfig(TargetSearchConfig):
    """What `quantum-diffusion compile` does (keys `compile.*`)."""

    command = "compile"

    model_dir: PathText | None = None
    """Folder of a saved model that was trained on unitaries, pretrained:NAME or hf://owner/name; null takes
    pretrained:unitary_3q, or unitary_4q or unitary_5q for targets of four or five qubits, which come with the
    package."""
    target: PathText
    """Unitary to compile: path of a .npy matrix or a .qasm circuit, or qft, toffoli, ccz, ghz or random; with qubits,
    qft:3, and for random gates, random:3:8; or fredkin, peres or adder (four qubits); or
    ising:3:J0.4:h0.2:t0.25 or xxz:3:J0.4:delta1.5:h0.2:t0.25, the evolution of a chain of spins (needs a tolerance)."""


class PrepareConfig(TargetSearchConfig):
    """What `quantum-diffusion prepare` does (keys `prepare.*`)."""

    command = "prepare"

    model_dir: PathText | None = None
    """Folder of a saved model that was trained on states, pretrained:NAME or hf://owner/name; null takes
    pretrained:state, which comes with the package."""
    target: PathText
    """State to prepare: path of a .npy vector or a .qasm circuit, or ghz, w, dicke:1, basis:101 or random; with qubits,
    ghz:3, w:3, dicke:4:2 (qubits, ones), and for random gates, random:3:8."""
