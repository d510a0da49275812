"""Data sets and models written by the first edition of this software open, and give the same samples.

`tests/fixtures/first_edition` was written at eb3cf24: `expected.json` is what that commit itself read and sampled.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.training.training import DiffusionTrainer

FOLDER = Path(__file__).parents[1] / "fixtures" / "first_edition"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
X_CONTROLLED = np.eye(4)[[0, 3, 2, 1]]


@pytest.mark.parametrize("name", ["srv", "unitary"])
def test_data_sets_hold_the_same(name: str) -> None:
    assert DatasetLoader().load_dataset(FOLDER / name).fingerprint == EXPECTED[name]


@pytest.mark.parametrize("name", ["m_srv", "m_cells", "m_unitary"])
def test_models_give_the_same_samples(name: str) -> None:
    pipeline = DiffusionTrainer.load_pipeline(FOLDER / name, "cpu")
    if name == "m_unitary":
        samples = pipeline.sample(pipeline.requests(["Compile using: ['h', 'cx']"] * 12, [X_CONTROLLED] * 12), 5)
    else:
        samples = pipeline.sample(["Generate SRV: [1, 2, 2]"] * 12, seed=5)
    assert samples.ids.tolist() == EXPECTED[name]["ids"]
    assert list(samples.report.reasons) == EXPECTED[name]["reasons"]
