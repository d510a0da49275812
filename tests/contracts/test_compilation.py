"""Unitaries as conditions: the algebra, what is refused, what samples may do, and what must not depend on what."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator, process_fidelity, random_unitary
from torch import Tensor, nn

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.instructions import instruction_table
from quantum_diffusion.circuits.matrices import (
    as_two_channels,
    from_two_channels,
    infidelities,
    pad_unitary,
    qubits_of_unitary,
)
from quantum_diffusion.circuits.prompts import gates_prompt, parse_gates_prompt
from quantum_diffusion.circuits.random import random_ids
from quantum_diffusion.circuits.simulate import unitaries
from quantum_diffusion.circuits.tokenizer import circuits_from_ids, decode_tokens
from quantum_diffusion.config.schema import DatasetConfig, SamplingConfig, TrainingConfig
from quantum_diffusion.config.validation import validate
from quantum_diffusion.data.container import Batch, CircuitDataset
from quantum_diffusion.data.dataset import BatchLoader
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.diffusion.noise import Noise
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.models.unitary_encoder import MatrixEncoder, without_phase
from quantum_diffusion.pipeline.build import pipeline_config
from quantum_diffusion.pipeline.compilation import CompilationDiffusionPipeline, make_pipeline
from quantum_diffusion.tasks import left_to_do
from quantum_diffusion.tasks.left_to_do import UnitariesLeft
from quantum_diffusion.tasks.unitary import UnitaryTask
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig

POOL = GatePool(["h", "cx", "z", "x", "ccx", "swap"])
TABLE = instruction_table(POOL, 3)
STEPS = 5
ENCODERS: dict[str, dict[str, Any]] = {
    "remaining": {"type": "matrix", "params": {"width": 16, "depth": 1, "remaining": True}},
    "matrix": {"type": "matrix", "params": {"width": 16, "depth": 1}},
    "convolution": {"type": "convolution", "params": {"transformer_depths": [1, 1], "num_heads": 2}},
}
MODELS = [
    ("transformer", "masked", "remaining"),
    ("transformer", "masked", "matrix"),
    ("transformer", "masked", "convolution"),
    ("transformer", "ddim", "matrix"),
    ("unet", "ddim", "convolution"),
]


def with_encoder(config: TrainingConfig, encoder: str) -> TrainingConfig:
    return validate(TrainingConfig, config.model_dump() | {"unitary_encoder": ENCODERS[encoder]}, "training")


@pytest.fixture(scope="module")
def data() -> CircuitDataset:
    """60 circuits of 3 qubits with their unitaries."""
    config = DatasetConfig(
        gate_set=POOL.names, condition_type="UNITARY", num_samples=60, min_gates=1, max_gates=STEPS, n_jobs=1
    )
    return DatasetGenerator(config).generate()[0]


def build(config: TrainingConfig, data: CircuitDataset) -> CompilationDiffusionPipeline:
    """Return a pipeline whose every weight has a size: layers that start at zero hide mistakes."""
    pipeline = make_pipeline(pipeline_config(config, data), seed=1)
    assert isinstance(pipeline, CompilationDiffusionPipeline)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in pipeline.network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    pipeline.network.eval()
    return pipeline


@pytest.fixture(params=MODELS, ids="-".join)
def pipeline(request: pytest.FixtureRequest, make_config: MakeConfig, data: CircuitDataset) -> Any:
    model, scheduler, encoder = request.param
    loss = {} if scheduler == "masked" else {"objective": "epsilon", "loss": "mse"}
    return build(with_encoder(make_config(model, scheduler, **loss), encoder), data)


def draw_unitaries(count: int, side: int, seed: int) -> NDArray[np.complex128]:
    return np.stack([random_unitary(side, seed=seed + i).data for i in range(count)])


def test_unitaries_of_all_instructions_are_made_only_where_they_are_used(
    make_config: MakeConfig, data: CircuitDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take 8 GB at 10 qubits."""
    calls: list[int] = []
    monkeypatch.setattr(left_to_do, "unitaries", lambda ids, table: calls.append(len(ids)) or unitaries(ids, table))
    build(with_encoder(make_config(), "matrix"), data)
    assert calls == []
    pipeline = build(with_encoder(make_config(), "remaining"), data)
    assert calls == []
    pipeline.sample(pipeline.requests([gates_prompt(["h"], POOL)], [np.eye(8)]), seed=0)
    assert calls == [len(TABLE) + 1]


# ------------------------------------------------------------------------------------- what remains to be done


def draw_problem(seed: int, masked: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return targets, ids and rank; the last `masked` of an order are not revealed."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, len(TABLE) + 1, (12, STEPS))
    rank = rng.random((12, STEPS)).argsort(axis=1)
    rank[:4], rank[4:8] = np.arange(STEPS), np.arange(STEPS)[::-1]
    rank = np.where(rank >= STEPS - masked, STEPS, rank)
    targets = as_two_channels(draw_unitaries(12, 8, seed))
    return torch.from_numpy(targets), torch.from_numpy(ids), torch.from_numpy(rank)


@pytest.mark.parametrize("masked", range(STEPS + 1))
def test_what_remains_is_the_target_without_the_known_beginning_and_end(masked: int) -> None:
    targets, ids, rank = draw_problem(masked, masked)
    found = from_two_channels(UnitariesLeft(TABLE).for_steps(targets, ids, rank).numpy())
    whole, known_lengths = from_two_channels(targets.numpy()), set()
    for row in range(len(ids)):
        for step in range(STEPS):
            known = (rank[row] < rank[row, step]).tolist()
            begin, end = [*known, False].index(False), [*known[::-1], False].index(False)
            circuits = ids[row : row + 1].numpy().astype(np.int16)
            first, last = unitaries(circuits[:, :begin], TABLE)[0], unitaries(circuits[:, STEPS - end :], TABLE)[0]
            np.testing.assert_allclose(last @ found[row, step] @ first, whole[row], atol=2e-6)
            known_lengths |= {("begin", begin), ("end", end)}
    most = 0 if masked == STEPS else STEPS - max(masked, 1)
    assert known_lengths == {(side, length) for side in ("begin", "end") for length in range(most + 1)}


@pytest.mark.parametrize("masked", [0, 2, STEPS])
def test_what_remains_never_shows_a_step_that_is_not_revealed_before(masked: int) -> None:
    targets, ids, rank = draw_problem(masked, masked)
    found = UnitariesLeft(TABLE).for_steps(targets, ids, rank)
    for step in range(STEPS):
        hidden = (rank >= rank[:, step, None]) | (rank == STEPS)
        changed = torch.where(hidden, (ids + 1 + step) % (len(TABLE) + 1), ids)
        assert torch.equal(UnitariesLeft(TABLE).for_steps(targets, changed, rank)[:, step], found[:, step])


# ------------------------------------------------------------------------------------------------ global phase


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([2, 4, 8]), st.floats(-10, 10))
def test_a_global_phase_is_taken_away(seed: int, side: int, angle: float) -> None:
    matrix = draw_unitaries(1, side, seed)
    plain = without_phase(torch.from_numpy(as_two_channels(matrix)))
    turned = without_phase(torch.from_numpy(as_two_channels(np.exp(1j * angle) * matrix)))
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(without_phase(plain), plain, atol=1e-6, rtol=0)
    whole = from_two_channels(plain.numpy())[0]
    np.testing.assert_allclose(whole.conj().T @ whole, np.eye(side), atol=1e-5)
    assert infidelities(whole[None], matrix)[0] < 1e-10


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(0, 6), st.floats(-10, 10))
def test_a_global_phase_is_taken_away_from_circuits(seed: int, gates: int, angle: float) -> None:
    """Whose matrices have many entries of one size, of which rounding must not choose."""
    ids = random_ids(np.random.default_rng(seed), TABLE, 1, gates, gates)
    matrix = unitaries(ids, TABLE)
    plain = without_phase(torch.from_numpy(as_two_channels(matrix)))
    turned = without_phase(torch.from_numpy(as_two_channels(np.exp(1j * angle) * matrix)))
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=0)


def test_zeros_have_no_phase() -> None:
    zeros = torch.zeros(3, 2, 4, 4, requires_grad=True)
    assert torch.equal(without_phase(zeros), torch.zeros(3, 2, 4, 4))
    without_phase(zeros).sum().backward()
    assert zeros.grad is not None
    assert bool(zeros.grad.isfinite().all())


def test_the_matrix_encoder_does_not_see_a_global_phase() -> None:
    torch.manual_seed(0)
    encoder = MatrixEncoder(num_qubits=3, condition_dim=8, width=32, depth=2)
    matrices = draw_unitaries(6, 8, 0)
    phases = np.exp(1j * np.arange(6))[:, None, None]
    with torch.no_grad():
        plain, turned = (encoder(torch.from_numpy(as_two_channels(m))) for m in (matrices, phases * matrices))
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=0)
    assert float((plain[0] - plain[1]).abs().max()) > 0.05, "but it sees the matrix"


# -------------------------------------------------------------------------------------------- targets, fidelity


@pytest.mark.parametrize(("small", "large"), [(1, 1), (1, 3), (2, 3), (3, 5)])
def test_a_padded_unitary_is_that_of_the_circuit_on_more_qubits(small: int, large: int) -> None:
    pool = GatePool(["h", "t"] if small == 1 else ["h", "t", "cx"])
    table = instruction_table(pool, small)
    ids = random_ids(np.random.default_rng(small), table, 10, 4, 8)
    for matrix, circuit in zip(unitaries(ids, table), circuits_from_ids(ids, table), strict=True):
        wider = QuantumCircuit(large).compose(QiskitBackend().to_native(circuit), range(small))
        padded = pad_unitary(matrix, large)
        assert padded.dtype == np.complex128
        np.testing.assert_allclose(padded, Operator(wider).data, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.eye(4)[:2], r"shape \(2, 4\)"),
        (np.eye(3), r"shape \(3, 3\)"),
        (np.eye(1), r"shape \(1, 1\)"),
        (np.zeros((0, 0)), r"shape \(0, 0\)"),
        (np.eye(2)[None], r"shape \(1, 2, 2\)"),
        (np.array("unitary"), "not numbers"),
        (np.array(1.0), r"shape \(\)"),
        ([[1, 0], [1]], "is not an array"),
        (np.array([["1", "0"], ["0", "1"]]), "not numbers"),
        (np.eye(2, dtype=object), "not numbers"),
        (np.array([[1, 0], [0, np.nan]]), "not finite"),
        (np.array([[1, 0], [0, np.inf]]), "not finite"),
        (np.zeros((4, 4)), "not unitary"),
        (1.001 * np.eye(4), "not unitary"),
        (np.array([[1, 1], [0, 1]]), "not unitary"),
        (np.array([[1e200, 1e200], [1e200, -1e200]]), "not unitary"),
        (np.eye(16), "4 qubits, but the model writes circuits of at most 3"),
    ],
)
def test_what_is_no_target_is_refused(
    make_config: MakeConfig, data: CircuitDataset, target: NDArray[Any], message: str
) -> None:
    pipeline = build(with_encoder(make_config(), "matrix"), data)
    with pytest.raises(ConfigError, match=message):
        pipeline.requests([gates_prompt(["h"], POOL)], [target])


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.uint8, np.float16, np.float32, np.complex64, np.complex128])
def test_every_kind_of_number_may_make_a_target(kind: Any) -> None:
    assert qubits_of_unitary(np.eye(8)[::-1].astype(kind)) == 3


def test_prompts_and_targets_come_in_pairs(make_config: MakeConfig, data: CircuitDataset) -> None:
    pipeline = build(with_encoder(make_config(), "matrix"), data)
    with pytest.raises(ConfigError, match="1 prompt for 2 targets"):
        pipeline.requests([gates_prompt(["h"], POOL)], [np.eye(8)] * 2)
    with pytest.raises(ConfigError, match="no prompts were given"):
        pipeline.sample(pipeline.requests([], []), seed=0)


def test_infidelities_are_those_of_qiskit() -> None:
    rng = np.random.default_rng(0)
    ids, others = (random_ids(rng, TABLE, 30, 0, 8) for _ in range(2))
    matrices = unitaries(ids, TABLE)
    targets = np.concatenate([unitaries(others, TABLE)[:15], draw_unitaries(15, 8, 7)])
    found = infidelities(matrices, targets)
    for row, circuit in enumerate(circuits_from_ids(ids, TABLE)):
        native = Operator(QiskitBackend().to_native(circuit))
        expected = 1 - process_fidelity(native, target=Operator(targets[row]), require_cp=False, require_tp=False)
        assert found[row] == pytest.approx(expected, abs=1e-12)
    assert found[15:].min() > 0.1

    phases = np.exp(1j * np.arange(30))[:, None, None]
    assert infidelities(matrices, phases * matrices).max() < 1e-14
    rounded = from_two_channels(as_two_channels(phases * matrices))
    assert infidelities(matrices, rounded).max() < 1e-13, "a target in float32 is as exact as it can be"


# ------------------------------------------------------------------------------------------------------ prompts


@given(st.lists(st.sampled_from(POOL.names), min_size=1, unique=True))
def test_prompts_say_the_same_when_written_and_read(gates: list[str]) -> None:
    prompt = gates_prompt(gates, POOL)
    in_order = tuple(name for name in POOL.names if name in gates)
    assert prompt == f"Compile using: {list(in_order)}"
    assert parse_gates_prompt(prompt, POOL) == in_order
    label = sum(1 << POOL.names.index(gate) for gate in gates)
    assert UnitaryTask().label_prompt(label, DatasetConfig(gate_set=POOL.names, condition_type="UNITARY")) == prompt


@pytest.mark.parametrize(
    "prompt", ["Compile using: ['h','cx']", " Compile using:['h' , 'cx' ] ", 'Compile  using: ["h", "cx"]']
)
def test_spaces_and_quotes_do_not_matter(prompt: str) -> None:
    assert parse_gates_prompt(prompt, POOL) == ("h", "cx")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Generate SRV: [1, 2, 2]", "not of the form"),
        ("Compile using: []", "not of the form"),
        ("compile using: ['h']", "not of the form"),
        ("Compile using: ['h',]", "not of the form"),
        ("Compile using: ['h' 'cx']", "not of the form"),
        ("Compile using: ['H']", "not of the form"),
        ("Compile using: ['h'], ['cx']", "not of the form"),
        ("", "not of the form"),
        ("Compile using: ['h', 't']", "allows 't', but"),
        ("Compile using: ['h', 'cx', 'h']", "names a gate twice"),
    ],
)
def test_other_prompts_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_gates_prompt(prompt, POOL)


# ------------------------------------------------------------------------------------------------------ samples


def draw_requests() -> tuple[list[str], list[NDArray[np.complex128]]]:
    """Requests of one to six gates for targets of one to three qubits."""
    prompts, targets = [], []
    for number in range(24):
        gates = [gate for k, gate in enumerate(POOL.names) if number % 8 in (k, k + 1) or number % 8 == 7]
        prompts.append(gates_prompt(gates, POOL))
        targets.append(draw_unitaries(1, 2 ** (1 + number % 3), number)[0])
    return prompts, targets


def test_samples_keep_to_the_gates_and_qubits_asked_for(pipeline: CompilationDiffusionPipeline) -> None:
    prompts, targets = draw_requests()
    samples = pipeline.sample(pipeline.requests(prompts, targets), seed=4)
    masked = pipeline.config.scheduler.type == "masked"
    assert not masked or samples.report.valid.all()
    used = set()
    for row in np.flatnonzero(samples.report.valid):
        (circuit,) = samples.circuits([row])
        gates = {step.gate for step in circuit.instructions}
        assert gates <= set(parse_gates_prompt(prompts[row], POOL))
        assert circuit.num_qubits == len(targets[row]).bit_length() - 1
        assert all(qubit < circuit.num_qubits for step in circuit.instructions for qubit in step.qubits)
        used |= gates
        wanted, made = pad_unitary(targets[row], 3), unitaries(samples.ids[row : row + 1], TABLE)
        assert samples.infidelities[row] == infidelities(made, wanted[None])[0]
    assert not masked or len(used) == 6
    assert (samples.infidelities[~samples.report.valid] == 1).all()


@pytest.mark.parametrize(("model", "encoder"), [("transformer", "matrix"), ("unet", "convolution")])
def test_gaussian_samples_that_do_not_are_invalid(
    make_config: MakeConfig, data: CircuitDataset, model: str, encoder: str
) -> None:
    """Shown with circuits of the data set in place of what an untrained network draws."""
    pipeline = build(with_encoder(make_config(model, "ddim", objective="epsilon", loss="mse"), encoder), data)
    tokens = torch.from_numpy(data.tokens)
    pipeline.process.sample = lambda *_, **__: tokens  # type: ignore[method-assign]
    for gates, width in ((POOL.names, 3), (("h", "x"), 3), (POOL.names, 2)):
        targets = [np.eye(2**width)] * len(data)
        requests = pipeline.requests([gates_prompt(gates, POOL)] * len(data), targets)
        samples = pipeline.sample(requests, 0, SamplingConfig())
        counts = {True: 0, False: 0}
        for row, circuit in enumerate(circuits_from_ids(decode_tokens(data.tokens, POOL).ids, TABLE)):
            forbidden = not {step.gate for step in circuit.instructions} <= set(gates)
            outside = any(qubit >= width for step in circuit.instructions for qubit in step.qubits)
            assert samples.report.valid[row] == (not forbidden and not outside)
            reason = samples.report.reasons[row]
            assert (reason == "gate on a qubit that was not asked for") == outside
            assert (reason == "gate that was not allowed") == (forbidden and not outside)
            counts[bool(samples.report.valid[row])] += 1
        assert counts[True]
        assert counts[False] or (gates, width) == (POOL.names, 3)


def test_a_sample_does_not_depend_on_its_batch(pipeline: CompilationDiffusionPipeline) -> None:
    """Told by what the process returns, also where no circuit comes of it."""
    drawn: list[Tensor] = []
    honest = pipeline.process.sample

    def record(*arguments: Any, **options: Any) -> Any:
        drawn.append(honest(*arguments, **options))
        return drawn[-1]

    pipeline.process.sample = record  # type: ignore[method-assign]

    def sample(prompts: list[str], targets: list[Any], batch_size: int = 512, first_sample: int = 0) -> Tensor:
        drawn.clear()
        options = SamplingConfig(guidance_scale=2.0, auto_batch_size=batch_size)
        pipeline.sample(pipeline.requests(prompts, targets), 5, options, first_sample=first_sample)
        return torch.cat(drawn)

    prompts, targets = draw_requests()
    together = sample(prompts, targets)
    assert len(together.unique(dim=0)) > 12
    assert torch.equal(sample(prompts, targets, batch_size=5), together)
    for row in (0, 4, 11, 23):
        assert torch.equal(sample([prompts[row]], [targets[row]], first_sample=row)[0], together[row])
    others: list[Any] = [np.eye(2 ** (1 + row % 2)) for row in range(24)]
    others[11] = targets[11]
    alike = sample([*[gates_prompt(["x"], POOL)] * 11, prompts[11], *[gates_prompt(["h"], POOL)] * 12], others)
    assert torch.equal(alike[11], together[11])
    assert not torch.equal(alike, together)


def test_a_small_target_is_the_same_as_one_padded_by_hand(pipeline: CompilationDiffusionPipeline) -> None:
    """But for the qubits that the sample may use."""
    prompt, target = gates_prompt(["h", "cx"], POOL), draw_unitaries(1, 4, 3)[0]
    request = []
    honest = pipeline._sample

    def spy(asked: Any, *rest: Any) -> Any:
        request.append(asked.targets)
        return honest(asked, *rest)

    pipeline._sample = spy  # type: ignore[method-assign]
    narrow = pipeline.sample(pipeline.requests([prompt], [target]), seed=0)
    wide = pipeline.sample(pipeline.requests([prompt], [pad_unitary(target, 3)]), seed=0)
    assert np.array_equal(*request)
    assert (narrow.num_qubits.tolist(), wide.num_qubits.tolist()) == ([2], [3])


# --------------------------------------------------------------------------------------------- condition dropout


@pytest.mark.parametrize("jointly", [False, True])
def test_conditions_are_dropped_at_their_rate(make_config: MakeConfig, data: CircuitDataset, jointly: bool) -> None:
    pipeline = build(with_encoder(make_config(), "matrix"), data)
    dropped = pipeline._draw_dropped(40_000, 0.3, jointly, Noise(torch.Generator().manual_seed(0))).numpy()
    assert dropped.shape == (40_000, 2)
    np.testing.assert_allclose(dropped.mean(axis=0), 0.3, atol=0.01)
    both = dropped.all(axis=1).mean()
    assert both == pytest.approx(0.3 if jointly else 0.09, abs=0.01)
    assert not jointly or np.array_equal(dropped[:, 0], dropped[:, 1])


def test_nothing_is_drawn_where_nothing_is_dropped(make_config: MakeConfig, data: CircuitDataset) -> None:
    pipeline = build(with_encoder(make_config(), "matrix"), data)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert not pipeline._draw_dropped(7, 0.0, False, Noise(generator)).any()
    assert torch.equal(generator.get_state(), before)


def test_a_dropped_unitary_is_not_seen_and_a_kept_one_is(
    pipeline: CompilationDiffusionPipeline, data: CircuitDataset
) -> None:
    """Also not by way of what remains of it."""
    batch = whole_batch(pipeline, data)
    assert batch.targets is not None
    other = Batch(batch.tokens, batch.prompt_ids, batch.sizes, batch.targets.flip(0))

    def loss(seen: Batch, dropped: list[bool]) -> float:
        pipeline._draw_dropped = lambda count, *_: torch.tensor(dropped).expand(count, 2)  # type: ignore[method-assign]
        with torch.no_grad():
            return float(pipeline.training_loss(seen, Noise(torch.Generator().manual_seed(0))).total)

    for prompt in (False, True):
        assert loss(batch, [prompt, True]) == loss(other, [prompt, True])
        assert loss(batch, [prompt, False]) != loss(other, [prompt, False])
    assert loss(batch, [True, False]) != loss(batch, [False, False])


# ------------------------------------------------------------------------------------------------------ training


def whole_batch(pipeline: CompilationDiffusionPipeline, data: CircuitDataset) -> Batch:
    return next(BatchLoader(data, np.arange(24), 24, 0, False, time_multiple=pipeline.time_multiple).epoch(0))


def test_the_loss_of_a_circuit_does_not_depend_on_its_neighbours(
    pipeline: CompilationDiffusionPipeline, data: CircuitDataset
) -> None:
    batch = whole_batch(pipeline, data)
    assert batch.targets is not None
    options: dict[str, Any] = {"condition_dropout": 0.3}

    def noise(rows: slice | None) -> Noise:
        return Noise(torch.Generator().manual_seed(3), rows, None if rows is None else len(batch))

    with torch.no_grad():
        whole = float(pipeline.training_loss(batch, noise(None), **options).total)
        alone = []
        for row in range(len(batch)):
            rows = slice(row, row + 1)
            one = Batch(batch.tokens[rows], batch.prompt_ids[rows], batch.sizes[rows], batch.targets[rows])
            alone.append(float(pipeline.training_loss(one, noise(rows), **options).total))
    assert np.std(alone) > 0.01
    assert np.mean(alone) == pytest.approx(whole, rel=1e-5)


def test_every_weight_learns(pipeline: CompilationDiffusionPipeline, data: CircuitDataset) -> None:
    noise = Noise(torch.Generator().manual_seed(0))
    pipeline.training_loss(whole_batch(pipeline, data), noise, condition_dropout=0.3).total.backward()
    still = [n for n, p in pipeline.network.named_parameters() if p.grad is None or float(p.grad.abs().max()) < 1e-9]
    assert still == []


def test_the_prefix_head_has_no_labels_in_unitaries(make_config: MakeConfig, data: CircuitDataset) -> None:
    config = with_encoder(make_config(prefix_head_weight=0.5), "matrix")
    with pytest.raises(ConfigError, match=r"prefix_head_weight=0\.5 trains on Schmidt rank vectors"):
        DiffusionTrainer(config).setup_model(data)


def test_options_left_open_are_the_model_s_own(pipeline: CompilationDiffusionPipeline) -> None:
    own = pipeline.config.scheduler
    resolved = pipeline.resolved(SamplingConfig(guidance_scale=0.0, auto_batch_size=3))
    assert (resolved.guidance_scale, resolved.scheduler, resolved.auto_batch_size) == (0.0, own.type, 3)
    assert resolved.guidance_mode == getattr(own.params, "guidance_mode", None)
    assert resolved.order == getattr(own.params, "order", None)
    assert resolved.sample_steps == (STEPS if own.type == "masked" else own.params.sample_steps)
    assert pipeline.resolved(resolved) == resolved


def test_without_unitaries_there_is_nothing_to_drop_together(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    with pytest.raises(ConfigError, match=r"joint_dropout=true drops prompts together with targets"):
        DiffusionTrainer(make_config(joint_dropout=True)).setup_model(dataset)


def test_the_convolutional_encoder_is_for_few_qubits(make_config: MakeConfig, data: CircuitDataset) -> None:
    config = pipeline_config(with_encoder(make_config(), "convolution"), data)
    make_pipeline(config.model_copy(update={"num_qubits": 6}))
    with pytest.raises(ConfigError, match=r"given 7 qubits, it holds 6 or less; use .*=matrix"):
        make_pipeline(config.model_copy(update={"num_qubits": 7}))


@pytest.mark.parametrize("model", ["transformer", "unet"])
def test_gaussian_models_have_no_steps_to_show_what_remains(make_config: MakeConfig, model: str) -> None:
    with pytest.raises(ConfigError, match="conditions each step on the remaining target"):
        with_encoder(make_config(model, "ddim"), "remaining")


def test_without_unitaries_there_is_no_unitary_encoder(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    """An encoder in the configuration changes nothing for data sets with Schmidt rank vectors."""
    plain = make_pipeline(pipeline_config(make_config(), dataset))
    configured = make_pipeline(pipeline_config(with_encoder(make_config(), "remaining"), dataset))
    assert not isinstance(configured, CompilationDiffusionPipeline)
    assert isinstance(plain.network, nn.ModuleDict)
    assert set(configured.network) == set(plain.network) == {"condition_encoder", "backbone"}
    for one, other in zip(plain.network.parameters(), configured.network.parameters(), strict=True):
        assert torch.equal(one, other)
