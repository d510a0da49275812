"""The first five losses at a fixed seed. To change them needs a line in CHANGELOG.md under "Numerics"."""

import pytest

from quantum_diffusion.config.schema import DatasetConfig, UnitaryEncoderConfig
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.generation import DatasetGenerator
from quantum_diffusion.pipeline.callbacks import FitObserver, StepRecord
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig

GOLDEN: dict[str, list[float]] = {
    "masked transformer": [2.454391, 2.4649858, 2.366983, 2.3689413, 2.2575586],
    "unet": [0.9445066, 0.9088659, 0.7909338, 0.4859834, 0.4318342],
    "unitaries": [2.106195, 1.9024433, 1.7077824, 1.7496981, 1.5339651],
}


class Losses(FitObserver):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, record: StepRecord) -> None:
        self.values.append(record.loss)


@pytest.mark.parametrize("name", GOLDEN)
def test_first_losses(make_config: MakeConfig, dataset: CircuitDataset, name: str) -> None:
    common = {"general": {"seed": 1234}, "num_epochs": 2, "max_steps": 5, "precision": "32"}
    if name == "unet":
        config = make_config("unet", "ddim", objective="epsilon", loss="mse", **common)
    else:
        weight = 0.5 if name == "masked transformer" else 0
        config = make_config(prefix_head_weight=weight, scheduler_params={"suffix_share": 0.5}, **common)
    if name == "unitaries":
        encoder = UnitaryEncoderConfig(params={"width": 16, "depth": 1, "remaining": True})
        config = config.model_copy(update={"unitary_encoder": encoder})
        settings = DatasetConfig(condition_type="UNITARY", num_samples=48, max_gates=5, n_jobs=1)
        dataset = DatasetGenerator(settings).generate()[0]
    observer = Losses()
    trainer = DiffusionTrainer(config, [observer])
    trainer.setup_model(dataset)
    trainer.compile_model()
    trainer.train()
    assert observer.values == pytest.approx(GOLDEN[name], rel=1e-4)
