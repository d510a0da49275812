"""genQC's side of the comparison: each case returns a function that does the work once and returns (count, seconds).

Only genQC, its dependencies and the standard library are imported here. Each case uses genQC as its documentation does;
where its code fails, the smallest change that lets it run is made and named.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

Measure = Callable[[], tuple[float, float]]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PAPER_UNET = {
    "model_features": [128, 128, 256],
    "t_emb_size": 256,
    "cond_emb_size": 512,
    "num_heads": [8, 8, 2],
    "num_res_blocks": [2, 2, 4],
    "transformer_depths": [1, 2, 1],
}
UNITARY_ENCODER = {
    "cond_emb_size": 512,
    "model_features": [2, 32, 64, 512],
    "num_heads": 8,
    "transformer_depths": [2, 2],
    "dropout": 0.2,
}
CLIP_TOKENS = 13
"""Number of CLIP tokens of "Generate SRV: [1, 2, 2]", to which genQC truncates its cached prompts."""


def wait() -> None:
    """Wait until the device is idle."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that work takes, including the device's."""
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


# ---------------------------------------------------------------------------------------------- generation


def _circuits(data: dict[str, Any], seed: int, seconds: float) -> list[bytes]:
    """Generate circuits for some seconds, as genQC's loop does; return their tokens.

    The loop itself (`get_rnd_encoded_circuits`) fails for Schmidt rank vectors with an undefined name.
    """
    from genQC.platform.backends.circuits_qiskit import CircuitsQiskitBackend
    from genQC.platform.circuits_generation import CircuitConditionType, get_rnd_encoded_circuit
    from genQC.platform.tokenizer.circuits_tokenizer import CircuitTokenizer

    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    backend, gates = CircuitsQiskitBackend(), data["gate_set"]
    tokenizer = CircuitTokenizer({gate: number for number, gate in enumerate(gates, start=1)})
    kind = CircuitConditionType[data["condition_type"]]
    made = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pool = list(gates)
        if data["condition_type"] == "UNITARY":
            pool = [pool[i] for i in np.sort(rng.choice(len(pool), rng.integers(1, len(pool) + 1), replace=False))]
        tokens = get_rnd_encoded_circuit(
            backend, tokenizer, kind, data["num_qubits"], pool, data["min_gates"], data["max_gates"], rng
        )[2]
        made.append(tokens.numpy().tobytes())
    return made


def generation(data: dict[str, Any], seconds: float, **_: Any) -> Measure:
    """Generate distinct, optimised, labelled circuits as genQC does: SRVs in one process, unitaries in one per core."""
    seeds: Iterator[int] = itertools.count()
    cores = joblib.cpu_count() if data["condition_type"] == "UNITARY" else 1

    def measure() -> tuple[float, float]:
        started = time.perf_counter()
        jobs = [joblib.delayed(_circuits)(data, next(seeds), seconds) for _ in range(cores)]
        made = joblib.Parallel(n_jobs=cores)(jobs)
        return len(set(itertools.chain(*made))), time.perf_counter() - started

    joblib.Parallel(n_jobs=cores)(joblib.delayed(_circuits)(data, 10**6 + i, 0.1) for i in range(cores))  # imports
    return measure


# ------------------------------------------------------------------------------------- training, sampling


class Prompts(nn.Module):
    """A table in place of CLIP with its cache, which also looks prompts up in a table."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(count + 1, CLIP_TOKENS, 512))
        self.empty_token = torch.zeros(1, CLIP_TOKENS, dtype=torch.int64, device=DEVICE)
        self.cached_empty_token_index = torch.tensor(count, device=DEVICE)

    def forward(self, index: Tensor, pool: bool = False) -> Tensor:
        """Return the features of prompts given by their rows, or by tokens (then those of the first row)."""
        return self.table[index if index.dim() == 1 else torch.zeros(len(index), dtype=torch.int64, device=DEVICE)]

    def tokenize_and_push_to_device(self, prompts: str | list[str]) -> Tensor:
        """Return as many rows of tokens as there are prompts."""
        return self.empty_token.expand(1 if isinstance(prompts, str) else len(prompts), -1)


def _pipeline(kind: str, num_gates: int, num_prompts: int = 1, trains: bool = False) -> Any:
    """Build genQC's pipeline with the paper's U-Net and random weights.

    Of its two classes for compilation, one fails when it trains and the other when it samples.
    """
    from genQC.models.unet_qc import QC_Compilation_UNet, QC_Cond_UNet
    from genQC.pipeline.compilation_diffusion_pipeline import DiffusionPipeline_Compilation as TrainingPipeline
    from genQC.pipeline.diffusion_pipeline import DiffusionPipeline
    from genQC.pipeline.diffusion_pipeline_special import DiffusionPipeline_Compilation as SamplingPipeline
    from genQC.scheduler.scheduler_ddim import DDIMScheduler

    class SrvPipeline(DiffusionPipeline):  # type: ignore[misc]
        def train_step(self, data: Any, train: bool, **kwargs: Any) -> Tensor:
            """As in genQC, without its undefined name."""
            tokens, prompts = (part.to(DEVICE) for part in data)
            x0 = self.embedder.embed(tokens)
            kept = torch.empty((len(x0),), device=DEVICE).bernoulli_(p=1.0 - self.guidance_train_p).type(torch.int64)
            condition = self.text_encoder(self.cfg_drop(prompts, self.empty_token_fn(prompts), kept), pool=False)
            t = torch.randint(0, int(self.scheduler.num_train_timesteps), (len(x0),), device=DEVICE)
            noise = torch.randn(x0.shape, device=DEVICE)
            noisy = self.scheduler.add_noise(x0, noise, t, train=train)
            loss: Tensor = self.loss_fn(self.model(noisy, t, condition), noise)
            return loss

    num_clrs = num_gates + 2
    scheduler = DDIMScheduler(
        DEVICE, 1000, beta_schedule="cos_alpha", input_perturbation=0.1, enable_zero_terminal_snr=False, eta=1.0
    )
    prompts = Prompts(num_prompts).to(DEVICE)
    if kind == "UNITARY":
        model = QC_Compilation_UNet(
            clr_dim=8, num_clrs=num_clrs, **PAPER_UNET, unitary_encoder_config=dict(UNITARY_ENCODER)
        )
        kind_of_pipeline = TrainingPipeline if trains else SamplingPipeline
        pipeline = kind_of_pipeline(scheduler, model.to(DEVICE), prompts, model, DEVICE)
    else:
        model = QC_Cond_UNet(clr_dim=4, num_clrs=num_clrs, **PAPER_UNET)
        pipeline = SrvPipeline(scheduler, model.to(DEVICE), prompts, model, DEVICE)
    pipeline.trainables = [model, prompts]  # else the optimizer is given the U-Net twice, as model and as embedder
    pipeline._progress_bar_config = {"disable": True}
    pipeline.fit_summary = lambda **kwargs: None
    return pipeline


def training(file: str, kind: str, batch: int, steps: int, **_: Any) -> Measure:
    """Train the paper's U-Net with genQC's loop."""
    from genQC.utils.misc_utils import DataLoaders

    content = np.load(file)
    pipeline = _pipeline(kind, int(content["num_gates"]), int(content["num_prompts"]), trains=True)
    pipeline.compile(torch.optim.Adam, nn.MSELoss, lr=3e-4)
    parts = [
        torch.from_numpy(content["tokens"].astype(np.int64)),
        torch.from_numpy(content["prompts"].astype(np.int64)),
    ]
    if kind == "UNITARY":
        parts.append(torch.from_numpy(content["unitaries"]))
    rows = torch.utils.data.Subset(torch.utils.data.TensorDataset(*parts), range(batch * steps))

    def measure() -> tuple[float, float]:
        loaders = DataLoaders(torch.utils.data.DataLoader(rows, batch, shuffle=True), None)
        return batch * steps, timed(lambda: pipeline.fit(1, loaders, lr=3e-4))

    measure()
    return measure


def _sampler(
    kind: str, num_qubits: int, max_gates: int, num_gates: int, count: int, steps: int, scale: float, **_: Any
) -> Callable[[], object]:
    from genQC.inference.sampling import generate_compilation_tensors, generate_tensors

    pipeline = _pipeline(kind, num_gates)
    pipeline.scheduler.set_timesteps(steps)
    length = -(-max_gates // 4) * 4
    common = {
        "samples": count,
        "system_size": num_qubits,
        "num_of_qubits": num_qubits,
        "max_gates": length,
        "g": scale,
        "no_bar": True,
        "auto_batch_size": count,
    }
    if kind == "UNITARY":
        unitary = torch.eye(2**num_qubits, dtype=torch.complex64).expand(count, -1, -1)
        return lambda: generate_compilation_tensors(
            pipeline, ["prompt"] * count, unitary, enable_params=False, **common
        )
    return lambda: generate_tensors(pipeline, "prompt", **common)


def sampling(**parameters: Any) -> Measure:
    """Sample tokens."""
    sample = _sampler(**parameters)
    sample()
    return lambda: (parameters["count"], timed(sample))


# ---------------------------------------------------------------------------------------------- evaluation


def _evaluator(file: str, kind: str, count: int) -> Callable[[], object]:
    """Decode the tokens of circuits and simulate them."""
    from genQC.platform.backends.circuits_qiskit import CircuitsQiskitBackend
    from genQC.platform.tokenizer.circuits_tokenizer import CircuitTokenizer

    content = np.load(file)
    backend = CircuitsQiskitBackend()
    tokenizer = CircuitTokenizer({str(gate): number for number, gate in enumerate(content["gates"], start=1)})
    tokens = torch.from_numpy(content["tokens"][:count].astype(np.int64))

    def work() -> int:
        matches = 0
        for row in range(len(tokens)):
            circuit = backend.genqc_to_backend(tokenizer.decode(tokens[row]))
            if kind == "UNITARY":
                found = backend.get_unitary(circuit)
                wanted = content["unitaries"][row, 0] + 1j * content["unitaries"][row, 1]
                matches += np.linalg.norm(found - wanted) < 1e-3
            else:
                matches += list(backend.schmidt_rank_vector(circuit)) == content["labels"][row].tolist()
        assert matches == len(tokens), f"{matches} of {len(tokens)} match"
        return matches

    return work


def evaluation(file: str, kind: str, count: int, **_: Any) -> Measure:
    """Decode circuits, simulate them and compare them with their labels."""
    evaluate = _evaluator(file, kind, count)
    return lambda: (count, timed(evaluate))


def verified(accuracy: float, evaluated: dict[str, Any], **parameters: Any) -> Measure:
    """Sample and verify circuits; as its weights are not at hand, the published accuracy says how many are right.

    Circuits of a data set take the place of decoded samples: those of random weights would be invalid.
    """
    sample, evaluate = _sampler(**parameters), _evaluator(count=parameters["count"], **evaluated)
    sample()

    def measure() -> tuple[float, float]:
        return accuracy * parameters["count"], timed(sample) + timed(evaluate)

    return measure


# ------------------------------------------------------------------------------------------- data, imports


def loading(folder: str, batch: int, **_: Any) -> Measure:
    """Load data sets, merge them, and take the first batch."""
    from genQC.dataset.circuits_dataset import CircuitsConfigDataset, MixedCircuitsConfigDataset

    class Texts:
        """In place of CLIP, whose tokenizer takes far longer: a text is one token."""

        empty_token = torch.zeros(1, 1, dtype=torch.int64)

        def tokenize_and_push_to_device(self, texts: list[str], to_device: bool = True) -> Tensor:
            rows = {text: row for row, text in enumerate(sorted(set(texts)), start=1)}
            return torch.tensor([[rows[text]] for text in texts])

        def generate_cache(self, **kwargs: Any) -> None:
            pass

    def work() -> None:
        sets = [
            CircuitsConfigDataset.from_config_file(f"{path}/config.yaml", torch.device("cpu"))
            for path in sorted(Path(folder).iterdir())
        ]
        gates = list(sets[0].gate_pool)
        merged, _ = MixedCircuitsConfigDataset.from_datasets(
            sets,
            balance_maxes=[10**9] * len(sets),
            pad_constant=len(gates) + 1,
            bucket_batch_size=-1,
            max_samples=[10**9] * len(sets),
            make_unique=False,
            model_scale_factor=4,
            gate_pool=gates,
            optimized=True,
            dataset_to_gpu=False,
            collate_fn="cut_padding_collate_fn",
        )
        loaders = merged.get_dataloaders(batch, Texts(), p_valid=0.05)
        next(iter(loaders.train))

    return lambda: (1, timed(work))


def importing(**_: Any) -> Measure:
    """Import what training and sampling need, in a process of its own."""
    modules = (
        "genQC.pipeline.diffusion_pipeline, genQC.models.unet_qc, genQC.scheduler.scheduler_ddim, "
        "genQC.inference.sampling, genQC.dataset.circuits_dataset, genQC.platform.simulation"
    )
    return lambda: (1, timed(lambda: subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)))
