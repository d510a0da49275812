"""What genQC 0.2.5 gets wrong, shown by running it, and what we do instead.

genQC is a test extra, so the module is skipped where it is missing; "Ours:" names the test of our side.
"""

import csv
import importlib
import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quantum_diffusion.circuits.gates import GatePool
from quantum_diffusion.circuits.tokenizer import VALID, decode_tokens
from quantum_diffusion.config.schema import TrainingConfig
from quantum_diffusion.config.store import compose
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.models.gate_embedding import GateEmbedding
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import WITHOUT_ANGLES, MakeConfig
from tests.contracts.tiny_clip import install_open_clip

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("genQC.models.unet_qc")
    genqc_unet = importlib.import_module("genQC.models.unet_qc")
    genqc_ddim = importlib.import_module("genQC.scheduler.scheduler_ddim")
    genqc_base = importlib.import_module("genQC.pipeline.pipeline")
    genqc_pipeline = importlib.import_module("genQC.pipeline.diffusion_pipeline")
    genqc_compilation = importlib.import_module("genQC.pipeline.compilation_diffusion_pipeline")
    genqc_sampling = importlib.import_module("genQC.inference.sampling")
    genqc_generation = importlib.import_module("genQC.platform.circuits_generation")
    genqc_qiskit = importlib.import_module("genQC.platform.backends.circuits_qiskit")
    genqc_tokenizer = importlib.import_module("genQC.platform.tokenizer.circuits_tokenizer")
    genqc_models = importlib.import_module("genQC.models.config_model")
    genqc_files = importlib.import_module("genQC.utils.config_loader")
    genqc_data = importlib.import_module("genQC.dataset.config_dataset")
    genqc_helpers = importlib.import_module("genQC.utils.misc_utils")

CPU = torch.device("cpu")
CHANNELS, QUBITS, STEPS = 4, 3, 8


class Text(nn.Module):
    """A text encoder: the number of a prompt is its feature; 0 says nothing."""

    empty_token = torch.zeros(1, dtype=torch.int64)
    cached_empty_token_index = torch.zeros((), dtype=torch.int64)

    def forward(self, numbers: Tensor, pool: bool) -> Tensor:
        return numbers.float().view(-1, 1, 1)

    def tokenize_and_push_to_device(self, texts: str) -> Tensor:
        return torch.ones(1, dtype=torch.int64)


class Network(nn.Module):
    """A network that remembers what it was shown."""

    params_config = SimpleNamespace(clr_dim=CHANNELS)
    channel_last = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((), 0.5))
        self.seen: list[Tensor] = []

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens.float()[:, None].expand(-1, CHANNELS, -1, -1)

    def invert(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, **_: Any) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.weight * torch.tanh(x)


def make_pipeline(kind: type = genqc_pipeline.DiffusionPipeline) -> Any:
    network = Network()
    scheduler = genqc_ddim.DDIMScheduler("cpu", beta_schedule="cos_alpha", enable_zero_terminal_snr=False)
    scheduler.set_timesteps(6)
    pipeline = kind(scheduler, network, Text(), network, CPU)
    pipeline._progress_bar_config = {"disable": True}
    return pipeline


class FittedPipeline(genqc_pipeline.DiffusionPipeline):  # type: ignore[misc,name-defined]
    """genQC's training with the step that it forgot to write, and without its picture."""

    graphs: list[bool]

    def train_step(self, data: Any, train: bool, **_: Any) -> Tensor:
        loss: Tensor = self.model(data[0], None, None).square().mean()
        self.graphs.append(loss.requires_grad)
        return loss

    def fit_summary(self, **_: Any) -> None:
        pass


def make_fitted() -> Any:
    pipeline = make_pipeline(FittedPipeline)
    pipeline.graphs, pipeline.trainables = [], [pipeline.model]
    pipeline.compile(torch.optim.Adam, nn.MSELoss, lr=0.1)
    return pipeline


def loaders(with_validation: bool = False) -> Any:
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(4, 2)), batch_size=2)
    return genqc_helpers.DataLoaders(batches, batches if with_validation else None)


# ---- training


@pytest.mark.parametrize("train", [True, False])
def test_its_training_step_for_schmidt_rank_vectors_uses_a_unitary_that_is_not_there(train: bool) -> None:
    """Ours: test_training.py::test_every_combination_trains_saves_loads_and_samples."""
    pipeline = make_pipeline()
    pipeline.loss_fn = nn.MSELoss()
    batch = (torch.zeros(2, QUBITS, STEPS, dtype=torch.int64), torch.ones(2, dtype=torch.int64))
    with pytest.raises(UnboundLocalError, match="'U'"):
        pipeline.train_step(batch, train)


def test_its_training_step_for_unitaries_takes_noise_for_the_target_whatever_is_predicted() -> None:
    """A perfect prediction of v has a loss above 0. Ours: test_gaussian.py::test_the_loss_of_an_oracle_is_zero."""
    pipeline = make_pipeline(genqc_compilation.DiffusionPipeline_Compilation)
    pipeline.scheduler = genqc_ddim.DDIMScheduler(
        "cpu", beta_schedule="cos_alpha", prediction_type="v-type", input_perturbation=None
    )
    pipeline.loss_fn = nn.MSELoss()
    tokens = torch.ones(64, QUBITS, STEPS, dtype=torch.int64)
    batch = (tokens, torch.ones(64, dtype=torch.int64), torch.zeros(64, 2, 8, 8))

    def oracle(x: Tensor, t: Tensor, *_: Any, **__: Any) -> Tensor:
        signal, spread = (
            value.sqrt().view(-1, 1, 1, 1)
            for value in (pipeline.scheduler.alphas_cumprod[t], 1 - pipeline.scheduler.alphas_cumprod[t])
        )
        return (signal * x - pipeline.embedder.embed(tokens)) / spread.clamp(min=1e-4)

    pipeline.model = oracle
    assert float(pipeline.train_step(batch, train=False)) > 0.5


def test_its_second_fit_keeps_the_schedule_of_the_first() -> None:
    """Ours: the next test."""
    pipeline, made = make_fitted(), []

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        made.append(torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1))
        return made[-1]

    pipeline.fit(1, loaders(), lr=0.1, lr_sched=schedule)
    pipeline.fit(1, loaders(), lr=0.1, lr_sched=schedule)
    assert len(made) == 1, "the second one was asked for and not made"
    assert pipeline.lr_sched is made[0]
    assert pipeline.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.1**2), "and goes on from where it was"


def test_our_second_training_has_its_own_schedule_and_optimizer(
    make_config: MakeConfig, dataset: CircuitDataset, tmp_path: Path
) -> None:
    def rates(name: str, start: str | None, schedule: str, rate: float) -> list[float]:
        general = {"output_path": str(tmp_path / name), "init_from_pipeline_dir": start}
        trainer = DiffusionTrainer(make_config(general=general, lr_scheduler=schedule, learning_rate=rate))
        trainer.setup_model(dataset)
        trainer.compile_model()
        trainer.save_model(trainer.train())
        with (tmp_path / name / "run" / "metrics.csv").open(newline="") as file:
            return [float(row[2]) for row in csv.reader(file) if row[1] == "learning_rate"]

    assert len(set(rates("first", None, "one_cycle", 1e-3))) > 1
    assert set(rates("second", str(tmp_path / "first"), "constant", 5e-4)) == {5e-4}


def test_its_validation_builds_graphs() -> None:
    """Ours: test_training.py::test_validation_has_fixed_noise_and_no_gradients."""
    pipeline = make_fitted()
    pipeline.fit(1, loaders(with_validation=True), lr=0.1)
    assert pipeline.graphs == [True] * 4, "two batches of training, and two of validation"


def test_its_saved_trainings_cannot_be_continued(tmp_path: Path) -> None:
    """No optimizer, schedule or generator is saved.

    Ours: test_training.py::test_an_interrupted_run_continues_bit_for_bit.
    """
    pipeline = make_fitted()
    network = genqc_unet.QC_Cond_UNet([32, 32, 32], CHANNELS, 4, 16, 8)
    pipeline.model = pipeline.embedder = network
    text = genqc_models.ConfigModel()
    text.params_config, text.save_path = {}, None
    pipeline.text_encoder = text
    pipeline.cbs = [genqc_base.CheckpointCB(1, f"{tmp_path}/")]
    pipeline.epoch, pipeline.fit_losses, pipeline.lr_sched = 1, [], None
    pipeline.cbs[0].after_epoch(pipeline)
    files = {path.name for path in (tmp_path / "ck_1").iterdir()}
    assert files <= {
        "config.yaml",
        "model.safetensors",
        "embedder.safetensors",
        "text_encoder.safetensors",
        "fit_losses.txt",
    }
    assert load_file(tmp_path / "ck_1" / "model.safetensors").keys() == network.state_dict().keys()
    fit = yaml.safe_load((tmp_path / "ck_1" / "config.yaml").read_text())["fit"]
    assert set(fit) <= {"lr", "lr_sched", "optimizer"}
    assert all(isinstance(value, str) for value in fit.values()), "names of classes, not their state"


def test_its_loaders_always_want_twelve_processes_each_and_single_data_sets_get_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number is no argument, and then a name is missing. Ours: `num_workers`, 0 unless given."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(genqc_data, "DataLoader", lambda **options: made.append(options))
    dataset = genqc_data.ConfigDataset(CPU, store_dict={"x": "tensor", "y": "tensor"}, dataset_to_gpu=False)
    dataset.x = dataset.y = torch.zeros(20, 2)
    assert "workers" not in str(inspect.signature(dataset.get_dataloaders))
    with pytest.raises(NameError, match="DataLoaders"):
        dataset.get_dataloaders(4)
    assert [options["num_workers"] for options in made] == [12, 12]
    ours = compose("training", TrainingConfig, ["training=quick_test_srv", "training.general.dataset=d"])
    assert ours.training.num_workers == 0


# ---- data


def generation(condition: Any, **options: Any) -> dict[str, Any]:
    return {
        "backend": genqc_qiskit.CircuitsQiskitBackend(),
        "tokenizer": genqc_tokenizer.CircuitTokenizer({"h": 1, "cx": 2, "t": 3}),
        "condition": condition,
        "num_of_qubits": 2,
        "min_gates": 4,
        "max_gates": 6,
        "optimized": False,
        **options,
    }


def test_it_cannot_make_a_data_set_for_schmidt_rank_vectors() -> None:
    """Ours: test_generation.py::test_circuits_are_what_was_asked_for."""
    kind = genqc_generation.CircuitConditionType.SRV
    with pytest.raises(NotImplementedError):
        genqc_generation.generate_circuit_dataset(total_samples=2, **generation(kind))
    with pytest.raises(UnboundLocalError, match="'u'"):  # the function beneath it, which says that it can
        genqc_generation.get_rnd_encoded_circuits(samples=2, silent=True, **generation(kind))


def test_its_unitaries_are_rounded_to_eleven_bits() -> None:
    """Ours: test_unitary_data.py::test_unitaries_are_those_of_qiskit, as written and read again."""
    kind = genqc_generation.CircuitConditionType.UNITARY
    _, _, unitaries, _ = genqc_generation.generate_circuit_dataset(total_samples=30, **generation(kind))
    assert unitaries.dtype == torch.float16
    exact = torch.complex(*unitaries.double().unbind(1))
    worst = (exact @ exact.mH - torch.eye(4)).abs().max()
    assert float(worst) > 1e-4, "not unitary to what its own targets are compared at"


def test_it_cannot_be_given_a_seed_for_data() -> None:
    """Ours: test_generation.py::test_every_number_of_workers_writes_the_same_bytes."""
    for function in (genqc_generation.generate_circuit_dataset, genqc_generation.get_rnd_encoded_circuits):
        assert not {"seed", "rng", "generator"} & set(inspect.signature(function).parameters)


def test_its_decoder_takes_the_first_of_two_gates_and_skips_what_it_does_not_know() -> None:
    """Ours: test_tokenizer.py::test_invalid_columns_are_reported."""
    tokenizer = genqc_tokenizer.CircuitTokenizer({"h": 1, "cx": 2})
    pool = GatePool(["h", "cx"])
    for column, read in (([1, -2, 2], ["h"]), ([0, 9, 0], []), ([2, 0, 0], ["cx"])):
        tokens = torch.tensor([column]).T
        assert [step.name for step in tokenizer.decode(tokens).data] == read
        assert decode_tokens(tokens[None].numpy(), pool).reasons != (VALID,)


# ---- sampling


def test_its_prompts_are_cut_to_the_longest_of_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two long prompts that part at the end become one.

    Ours: test_clip.py::test_a_model_sees_as_many_tokens_as_its_longest_prompt.
    """
    pytest.importorskip("transformers")
    install_open_clip(monkeypatch, tmp_path)
    text = importlib.import_module("genQC.models.frozen_open_clip").CachedFrozenOpenCLIPEmbedder()
    text.generate_cache(str_list=["Generate SRV: [1, 1]", ""], cached_empty_token_index=1)
    begin = "Generate SRV: [1, 2, 2, 2, 2"
    one, other = (text(text.tokenize_and_push_to_device(f"{begin}, {end}]")) for end in (1, 2))
    assert one.shape[1] == text.max_length < 77
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["generate_tensors", "generate_compilation_tensors", "batched_sampling"])
def test_its_sampling_has_no_seed(name: str) -> None:
    """Ours: test_seeding.py::test_samples_do_not_depend_on_how_they_are_grouped."""
    assert not {"seed", "generator"} & set(inspect.signature(getattr(genqc_sampling, name)).parameters)


def test_its_samples_depend_on_the_batch_and_are_not_the_same_twice() -> None:
    """A seed of torch's own does not help. Ours: test_training.py::test_samples_do_not_depend_on_the_batch_size."""
    pipeline = make_pipeline()

    def sample(batch_size: int) -> Tensor:
        found: Tensor = genqc_sampling.generate_tensors(
            pipeline, "prompt", 4, QUBITS, QUBITS, STEPS, auto_batch_size=batch_size
        )
        return found

    pipeline.scheduler.eta = 1.0
    torch.manual_seed(0)
    first, second = sample(4), sample(4)
    assert not torch.allclose(first, second)
    torch.manual_seed(0)
    assert not torch.allclose(sample(2)[2:], first[2:])


def test_its_masked_sampling_never_noises_the_kept_region() -> None:
    """The loop forgets how many steps there are, so the network sees clean cells at every level but the first.

    Ours: test_gaussian.py::test_the_known_region_is_noised_anew_to_the_level_of_every_step.
    """
    pipeline = make_pipeline()
    circuits = torch.full((2, CHANNELS, QUBITS, STEPS), 3.0)
    mask = torch.zeros(QUBITS, STEPS)
    mask[:, 4:] = 1
    condition = torch.ones(2, dtype=torch.int64)
    pipeline.latent_filling(circuits, mask, c=condition, enable_guidance=False, no_bar=True)
    seen = pipeline.model.seen
    assert len(seen) == 6
    assert not torch.allclose(seen[0][..., :4], circuits[..., :4])
    assert all(torch.equal(x[..., :4], circuits[..., :4]) for x in seen[1:])
    with pytest.raises(NameError, match="fill_x0"):
        pipeline.latent_filling(
            circuits, mask, c=condition, enable_guidance=False, no_bar=True, return_predicted_x0=True
        )


def test_its_call_reads_time_steps_it_does_not_have() -> None:
    """Ours: `sample_steps` of every call; test_gaussian.py::test_impossible_samplers_and_steps_are_refused."""
    pipeline = make_pipeline()
    with pytest.raises(AttributeError, match="timesteps"):
        pipeline(torch.zeros(1, CHANNELS, QUBITS, STEPS), c=torch.ones(1, dtype=torch.int64), timesteps=[5, 0])


# ---- files and weights


def save_unet(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Any]:
    """Save a U-Net of genQC with other weights; returns its description."""
    torch.manual_seed(0)
    network = genqc_unet.QC_Cond_UNet([32, 32, 32], CHANNELS, 4, 16, 8)
    save_file(change(network.state_dict()), folder / "model.safetensors")
    description: dict[str, Any] = network.get_config(save_path=f"{folder}/model")
    description["params"] = vars(description["params"])
    return description


def test_it_opens_models_without_some_weights_or_with_others(tmp_path: Path) -> None:
    """A warning is printed, and what is missing is random.

    Ours: test_genqc_parity.py::test_missing_unknown_and_misshapen_weights_are_refused, and for our own folders
    test_checkpoint.py::test_a_damaged_model_is_refused.
    """
    description = save_unet(
        tmp_path, lambda state: {k: v for k, v in state.items() if k != "conv_in.weight"} | {"other": torch.ones(1)}
    )
    networks = [genqc_models.ConfigModel.from_config(description, CPU, f"{tmp_path}/model") for _ in range(2)]
    one, other = (network.state_dict() for network in networks)
    assert not torch.equal(one["conv_in.weight"], other["conv_in.weight"])
    assert torch.equal(one["conv_in.bias"], other["conv_in.bias"])


def test_its_fixed_gate_embedding_is_trained_after_it_was_opened_for_training(tmp_path: Path) -> None:
    """While it moves, so does the target of the loss.

    Ours: test_gate_embedding.py::test_the_table_is_a_saved_buffer_drawn_from_the_generator.
    """
    description = save_unet(tmp_path, lambda state: state)
    assert not genqc_unet.QC_Cond_UNet([32, 32, 32], CHANNELS, 4, 16, 8).emb_clr.weight.requires_grad
    opened = genqc_models.ConfigModel.from_config(description, CPU, f"{tmp_path}/model", freeze=False)
    assert opened.emb_clr.weight.requires_grad
    assert list(GateEmbedding(4, CHANNELS).parameters()) == []


class MakesFolder:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_its_data_sets_run_what_their_labels_hold(tmp_path: Path) -> None:
    """Ours: test_genqc_data.py::test_pickles_that_call_functions."""
    torch.save({"0": MakesFolder(tmp_path / "hacked")}, tmp_path / "ds_y.pt")
    genqc_files.load_tensor(f"{tmp_path}/ds_y.safetensors", CPU, type="numpy")
    assert (tmp_path / "hacked").is_dir()


def test_its_descriptions_call_any_function_of_any_module(tmp_path: Path) -> None:
    """Ours: test_genqc_pipeline.py::test_what_cannot_be_opened_is_said_in_a_line and, for data sets,
    test_genqc_data.py::test_other_targets.
    """
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"target": "os.mkdir", "params": {"path": str(tmp_path / "hacked")}}))
    with pytest.raises(AttributeError):  # only afterwards does it miss a model
        genqc_models.ConfigModel.from_config_file(config, None)
    assert (tmp_path / "hacked").is_dir()


# ---- gates


def test_gates_it_names_and_cannot_build() -> None:
    """Qiskit's classes are guessed from names. Ours: test_gate_harness.py, for every gate of the table."""
    unknown = []
    for name in WITHOUT_ANGLES:
        try:
            genqc_qiskit.instruction_name_to_qiskit_gate(name)
        except AttributeError:
            unknown.append(name)
    assert unknown == ["sdg", "tdg", "cswap", "sxdg"]
    parameterised, plain = {"rx", "cp"}, {"x", "y", "z", "h", "cx", "cy", "cz", "ccx", "swap", "s", "sdg", "t", "tdg"}
    tokens = genqc_tokenizer.CircuitTokenizer.get_parametrized_tokens
    assert tokens({name: number for number, name in enumerate([*sorted(plain), *sorted(parameterised)])}) == [13, 14]
    assert {*WITHOUT_ANGLES} - plain == {"cswap", "sx", "sxdg"}, "all of its plain gates but ch"
    with pytest.raises(NotImplementedError, match="cswap"):
        tokens({"cswap": 1})


def test_its_data_of_gates_it_cannot_build_fails() -> None:
    kind = genqc_generation.CircuitConditionType.UNITARY
    with pytest.raises(AttributeError, match="SDGGate"):
        genqc_generation.get_rnd_encoded_circuit(rng=np.random.default_rng(0), gate_pool=["sdg"], **generation(kind))
