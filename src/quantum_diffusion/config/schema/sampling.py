"""The sections of sampling: how a model samples, and which vector or target to find circuits for.

The commands sample, compile, prepare and refine read them; evaluation uses the same sampling keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from quantum_diffusion.config.schema.processes import GuidanceMode, Order, Sampler
from quantum_diffusion.config.schema.values import (
    Engine,
    Growth,
    Jobs,
    NonNegative,
    PathText,
    Positive,
    Rank,
    Rate,
    Scale,
    Seconds,
    Seed,
    Temperature,
    Text,
    TopP,
)
from quantum_diffusion.config.validation import Rule, Section, refuse
from quantum_diffusion.errors import unknown_name

Language = Literal["qasm2", "qasm3"]
Weights = Literal["averaged", "last"]
SearchMethod = Literal["auto", "beam", "sampling"]
Cost = Literal["gates", "two_qubit_gates", "t_count", "depth"]
LARGEST_WEIGHT = 1e12
"""Of a cost in an objective."""


def _check_objective(value: Any) -> Any:
    weighs = isinstance(value, Mapping) and bool(value)
    for name in value if weighs else [value]:
        if name == "energy":
            raise ValueError(
                "energy is an objective of prepare alone, with a target ground:HAMILTONIAN and no weights: give "
                f"one of {', '.join(get_args(Cost))}, or several with weights, e.g. {{gates:1,two_qubit_gates:3}}"
            )
        may_be_gate = weighs and isinstance(name, str) and name.isalpha()  # `circuits.costs` knows the gates
        if name not in get_args(Cost) and not may_be_gate:
            raise ValueError(
                unknown_name("cost", name, get_args(Cost)) + "; or weigh several, or gates, e.g. {gates:1,cx:10}"
            )
    for name, weight in value.items() if isinstance(value, Mapping) else ():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= LARGEST_WEIGHT:
            raise ValueError(f"the weight of {name} is {weight!r}: give a number from 0 to {LARGEST_WEIGHT:g}")
    return value


def _check_target_objective(value: Any) -> Any:
    return value if value == "energy" else _check_objective(value)


SearchObjective = Annotated[Cost | dict[str, float], BeforeValidator(_check_objective)]
"""The cost of a circuit: one measure, or several, and gates by name, with weights."""
TargetObjective = Annotated[Cost | Literal["energy"] | dict[str, float], BeforeValidator(_check_target_objective)]
"""The same, or the energy of the state that a circuit prepares."""


class SamplingConfig(Section):
    """How circuits are sampled (keys `model_params.*` of evaluation, sample, compile and prepare)."""

    guidance_scale: Scale | None = None
    """Guidance scale, the strength of the prompt; 1 is none, null uses the model's default."""
    guidance_growth: Growth | None = None
    """Gates over which guidance grows to full strength (masked models only): the first gates are drawn more freely, so
    that circuits differ more; 0 guides all equally, null uses the model's default."""
    guidance_mode: GuidanceMode | None = None
    """plain, rescaled or cfg++ (Gaussian models only); null uses the model's default."""
    sample_steps: Positive | None = None
    """Denoising steps; null uses the model's default."""
    scheduler: Sampler | None = None
    """Sampler; null uses the one the model was trained with."""
    temperature: Temperature | None = None
    """Sampling temperature, which divides log-probabilities (masked models only): below 1, likely gates become more
    frequent and circuits less diverse; null uses the model's default."""
    top_p: TopP | None = None
    """Draw among the likeliest gates with this total probability (masked models only); 1 draws among all, null uses the
    model's default."""
    order: Order | None = None
    """Order of filling time steps (masked models only): random; left_to_right; confidence, the step that the network is
    most certain of; or surer_end, the first or the last missing gate, which beam search uses too (policies for
    unitaries; left to right if gates are kept). null uses the model's default."""
    weights: Weights = "averaged"
    """Weights to sample with: averaged over training, or the last ones; the same for models without averaging. Commands
    read it when they load the model; in Python, pass it to load_pipeline, not to pipeline.sample."""
    auto_batch_size: Positive = 512
    """Circuits sampled per batch; results do not depend on it."""
    n_jobs: Jobs = 1
    """Sampling processes; -1 uses every core (of the cluster, with Ray). Results do not depend on it."""
    engine: Engine = "local"
    """local (processes on this machine) or ray (the cluster at RAY_ADDRESS, or this machine), if n_jobs is not 1."""


class EditConfig(Section):
    """Constraints on sampling (keys `edit.*` of sample, compile, prepare); docs/editing.md has examples."""

    start: PathText | None = None
    """OpenQASM file with the circuit to edit; null starts from scratch."""
    keep: tuple[int, ...] = ()
    """Gates of start to keep unchanged and in place, by position from 0."""
    strength: Rate = 1.0
    """Share of the other steps (masked models) or of the noise (Gaussian models) to redo; 1 redoes all."""
    coupling: tuple[tuple[int, int], ...] | None = None
    """Pairs of connected qubits, e.g. [[0,1],[1,2]]; null connects all."""
    fixed_qubits: tuple[int, ...] = ()
    """Qubits that no gate may touch."""
    min_gates: NonNegative = 0
    """Minimum number of gates."""


class SampleConfig(Section):
    """What `quantum-diffusion sample` does (keys `sample.*`)."""

    model_dir: PathText | None = None
    """Folder of a saved model, pretrained:NAME or hf://owner/name; null uses pretrained:srv."""
    srv: Annotated[tuple[Rank, ...], Field(min_length=1)]
    """Schmidt rank vector to find circuits for, one entry per qubit: 1 separable, 2 entangled."""
    negative_srv: Annotated[tuple[Rank, ...], Field(min_length=1)] | None = None
    """Vector that guidance leads away from, with as many qubits; null leads away from none in particular. It needs a
    model_params.guidance_scale other than 1."""
    num_circuits: Positive = 4
    """Number of distinct verified circuits wanted."""
    max_tries: Positive = 1024
    """Maximum number of circuits to sample; ignored when max_seconds is given."""
    max_seconds: Seconds | None = None
    """Time limit in seconds, used in full to look for cheaper circuits; null stops as soon as num_circuits are found.
    Ctrl-C ends the search with the best circuits so far."""
    objective: SearchObjective = "gates"
    """Cost to minimise: gates; two_qubit_gates (a gate on k qubits counts k - 1 times); t_count (t, tdg and rotations
    that are no Clifford gates); depth; or several, also gates by name, with weights: {gates:1,cx:10}.
    The cheapest circuits found are returned."""
    max_gates: Positive | None = None
    """Maximum number of gates that the model may write; null uses the model's limit."""
    simplify: bool = True
    """Simplify circuits and verify the simplified form; circuits with kept gates or edit.min_gates are not
    simplified."""
    save_folder: PathText | None = None
    """Folder for the circuits, a picture and a summary; null only prints them."""
    format: Language = "qasm2"
    """OpenQASM version of circuits in save_folder: 2 or 3."""
    seed: Seed = 0
    """Seed of the samples."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    model_params: SamplingConfig = SamplingConfig()
    edit: EditConfig = EditConfig()


class TargetSearchConfig(Section):
    """A search for circuits of a target: a unitary (compile) or a state (prepare)."""

    command: ClassVar[str]

    model_dir: PathText | None = None
    """Folder of a saved model that was trained on such targets."""
    target: PathText
    """Unitary or state that circuits have to implement."""
    negative_target: PathText | None = None
    """Target that guidance leads away from, written like target; null leads away from none in particular. It needs a
    model_params.guidance_scale other than 1, e.g. 2."""
    gates: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Gates that circuits may use; null allows all of the model's gates that fit the target."""
    max_gates: Positive | None = None
    """Maximum number of gates, counted after simplification; null sets no limit."""
    search: SearchMethod = "auto"
    """beam extends the likeliest prefixes with distinct remaining targets, in ever wider beams, and looks up the last
    gates (masked models that condition every step on the remaining target); sampling draws whole circuits; auto uses
    beam where the model and the edit allow it. For gates with angles, samples are refined instead."""
    max_tries: Positive = 1024
    """Maximum number of circuits to sample, or maximum beam width; ignored when max_seconds is given."""
    max_seconds: Seconds | None = None
    """Time limit in seconds, used in full to look for cheaper circuits; null stops as soon as num_circuits are found.
    Ctrl-C ends the search with the best circuits so far."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest infidelity to accept; 0 requires exact circuits (infidelity below 1e-6, with angles below 1e-10)."""
    objective: TargetObjective = "gates"
    """Cost to minimise: gates; two_qubit_gates (a gate on k qubits counts k - 1 times); t_count (t, tdg and rotations
    that are no Clifford gates); depth; or several, also gates by name, with weights: {gates:1,cx:10}."""
    num_circuits: Positive = 1
    """Number of distinct circuits wanted."""
    save_folder: PathText | None = None
    """Folder for the circuits, a picture and a summary; null only prints them."""
    format: Language = "qasm2"
    """OpenQASM version of circuits in save_folder: 2 or 3."""
    seed: Seed = 0
    """Seed of the samples and of random targets."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    model_params: SamplingConfig = SamplingConfig()
    edit: EditConfig = EditConfig()


class CompileConfig(TargetSearchConfig):
    """What `quantum-diffusion compile` does (keys `compile.*`)."""

    command = "compile"

    model_dir: PathText | None = None
    """Folder of a saved model that was trained on unitaries, pretrained:NAME or hf://owner/name; null uses
    pretrained:unitary_3q, unitary_4q or unitary_5q, depending on the target's qubits, or pretrained:angles_3q if gates
    has some with angles, or is null and the others do not make the target."""
    target: PathText
    """Unitary to compile: path of a .npy matrix or a .qasm circuit, or a name: qft, toffoli, ccz, ghz or random, also
    with the number of qubits (qft:3) and, for random, of gates (random:3:8); fredkin, peres or adder (four qubits); or
    ising:3:J0.4:h0.2:t0.25, xxz:3:J0.4:delta1.5:h0.2:t0.25 or heisenberg:3:t0.25, the evolution of a spin chain, or
    pauli:0.5*XXI-0.3*IZZ:t0.25, that of a sum of Pauli operators (these need gates with angles, or a tolerance)."""
    objective: SearchObjective = "gates"
    """Cost to minimise: gates; two_qubit_gates (a gate on k qubits counts k - 1 times); t_count (t, tdg and rotations
    that are no Clifford gates); depth; or several, also gates by name, with weights: {gates:1,cx:10}."""


class RefineConfig(Section):
    """What `quantum-diffusion refine` does (keys `refine.*`): find the angles of a given circuit."""

    circuit: PathText
    """OpenQASM file of the circuit; its gates stay, and the search starts from its angles."""
    target: PathText | None = None
    """Unitary that the circuit has to implement, written like compile.target; give this, state or energy."""
    state: PathText | None = None
    """State that the circuit has to prepare, written like prepare.target; give this, target or energy."""
    energy: PathText | None = None
    """Hamiltonian whose energy the circuit's state has to minimise, a sum of Pauli operators such as 0.5*XXI-0.3*IZZ,
    the last letter for qubit 0; give this, target or state."""
    starts: Positive = 32
    """Number of searches, each from other angles: the circuit's own, then random ones."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest infidelity to accept; 0 requires an exact circuit (infidelity below 1e-10). For an energy, how far above
    the lowest possible it may be, as a share of the range of all energies."""
    shorten: bool = False
    """Delete gates that the target can do without."""
    round_angles: bool = True
    """Round angles to multiples of pi, pi/2, ..., pi/16 where the other angles can make up for it."""
    save_folder: PathText | None = None
    """Folder for the circuit, a picture and a summary; null only prints it."""
    format: Language = "qasm2"
    """OpenQASM version of the circuit in save_folder: 2 or 3."""
    seed: Seed = 0
    """Seed of the random angles."""
    device: Text = "auto"
    """auto (CUDA, else CPU), cpu, cuda or cuda:N."""

    @model_validator(mode="after")
    def _check(self) -> RefineConfig:
        given = [self.target, self.state, self.energy]
        refuse((Rule(given.count(None) != len(given) - 1, "give one of target, state and energy"),))
        return self


class PrepareConfig(TargetSearchConfig):
    """What `quantum-diffusion prepare` does (keys `prepare.*`)."""

    command = "prepare"

    model_dir: PathText | None = None
    """Folder of a saved model that was trained on states, pretrained:NAME or hf://owner/name; null uses
    pretrained:state, or pretrained:angles_state if gates has some with angles, or is null and pretrained:state does
    not make the target."""
    target: PathText
    """State to prepare: path of a .npy vector or a .qasm circuit, or a name: ghz, w, dicke:1, basis:101 or random, also
    with the number of qubits (ghz:3, w:3), of qubits and ones (dicke:4:2), or of qubits and gates (random:3:8); or
    ground:0.5*XXI-0.3*IZZ, a ground state of a sum of Pauli operators."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest infidelity to accept; 0 requires exact circuits (infidelity below 1e-6, with angles below 1e-10). For
    objective=energy, how far above the lowest possible energy a circuit may be, as a share of the range of all
    energies; 0 requires less than 1e-10."""
    objective: TargetObjective = "gates"
    """Cost to minimise: gates; two_qubit_gates (a gate on k qubits counts k - 1 times); t_count (t, tdg and rotations
    that are no Clifford gates); depth; or several, also gates by name, with weights: {gates:1,cx:10}.
    energy looks for the lowest energy of a target ground:HAMILTONIAN, instead of for one particular ground state, and
    then for few gates."""
