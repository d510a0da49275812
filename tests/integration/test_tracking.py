"""A training run is tracked everywhere at once, also when it is interrupted and continued."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from quantum_diffusion.circuits.backends.qiskit import QiskitBackend
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.tracking.experiment import read_metrics, read_run
from quantum_diffusion.training.training import DiffusionTrainer
from tests.conftest import MakeConfig
from tests.integration.test_training import InterruptAt, train

ALWAYS = ["csv", "jsonl", "tensorboard", "wandb"]
Values = dict[tuple[int, str], float]


def in_csv(run: Path) -> Values:
    rows = read_metrics(run)
    values = {(step, name): value for step, name, value in rows}
    assert len(values) == len(rows), "nothing is there twice"
    return values


def in_json_lines(run: Path) -> tuple[Values, dict[int, str]]:
    values: Values = {}
    texts = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        step = record.pop("step")
        if "sampled_circuits" in record:
            texts[step] = record.pop("sampled_circuits")
        assert not values.keys() & {(step, name) for name in record}, "nothing is there twice"
        values |= {(step, name): value for name, value in record.items()}
    return values, texts


def in_tensorboard(run: Path) -> tuple[Values, dict[int, str]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags: dict[str, Any] = events.Tags()
    values = {(event.step, name): event.value for name in tags["scalars"] for event in events.Scalars(name)}
    tensors = events.Tensors("sampled_circuits/text_summary")
    return values, {event.step: event.tensor_proto.string_val[0].decode() for event in tensors}


def in_mlflow(models: Path) -> tuple[Values, dict[int, str]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{models}/mlflow.db")
    experiment = client.get_experiment_by_name("experiment")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("small", "FINISHED")
    assert run.data.params["training.num_epochs"] == "3"
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert all(len(points) == len({point.step for point in points}) for points in histories.values())
    texts = (models / "mlartifacts").glob(f"{run.info.run_id}/artifacts/sampled_circuits/*.txt")
    return (
        {(point.step, name): point.value for name, points in histories.items() for point in points},
        {int(path.stem.removeprefix("step_")): path.read_text(encoding="utf-8") for path in texts},
    )


@pytest.mark.parametrize("loggers", [ALWAYS, [*ALWAYS, "mlflow"]])
def test_a_continued_run_is_whole_in_every_place(
    make_config: MakeConfig,
    dataset: CircuitDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    loggers: list[str],
) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    models = tmp_path / "models"
    general = {"output_path": str(models), "model_name": "small", "loggers": loggers}
    config = make_config(general=general, num_epochs=3, sample_every=1, num_sampled=8)
    run = models / "small" / "run"

    assert train(config, dataset, InterruptAt(5))[1].status == "interrupted"
    assert train(config, dataset)[1].status == "finished"
    assert read_run(run)["status"] == "finished"
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert not caplog.messages
    assert capfd.readouterr() == ("", "")

    values = in_csv(run)
    steps = max(step for step, _ in values)
    assert {step for step, name in values if name == "loss"} == set(range(1, steps + 1))
    measured = {step: value for (step, name), value in values.items() if name == "sampled_accuracy"}
    assert list(measured) == [steps // 3, 2 * steps // 3, steps]
    for metric in ("validation_loss", "learning_rate", "gradient_norm", "samples_per_second", "memory_gib"):
        assert any(name == metric for _, name in values)

    lines, drawn = in_json_lines(run)
    assert lines == values
    assert list(drawn) == list(measured)
    assert drawn[steps].count("asked [") == 4
    assert "q_2: " in drawn[steps]
    points, texts = in_tensorboard(run)
    assert points == {key: pytest.approx(value, rel=1e-6) for key, value in values.items()}
    assert {step: text.count("asked [") for step, text in texts.items()} == dict.fromkeys(measured, 4)

    starts = list((run / "wandb").glob("offline-run-*"))
    assert len(starts) == 2, "an interrupted start and one that continued it"
    assert len({next(start.glob("run-*.wandb")).name for start in starts}) == 1, "with one id"
    assert len(list((run / "wandb").glob("offline-run-*/**/sampled_circuits_*.html"))) == 3
    if "mlflow" in loggers:
        assert in_mlflow(models) == (values, drawn)


def test_loggers_may_change_when_a_run_is_continued(make_config: MakeConfig, dataset: CircuitDataset) -> None:
    train(make_config(general={"loggers": ["csv"]}, num_epochs=2), dataset, InterruptAt(4))
    folder = train(make_config(general={"loggers": ["csv", "jsonl"]}, num_epochs=2), dataset)[1].folder
    lines, _ = in_json_lines(folder / "run")
    assert lines == {key: value for key, value in in_csv(folder / "run").items() if key[0] > 4}


@pytest.mark.draws
def test_pictures_and_drawings_that_fail_are_only_told(
    make_config: MakeConfig,
    dataset: CircuitDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = {"max_samples": 32, "sample_every": 1, "num_sampled": 2}
    train(make_config(**loop), dataset)
    curve = tmp_path / "model" / "loss_curve.png"
    assert curve.exists()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", None)
    monkeypatch.setattr(QiskitBackend, "draw_text", None)
    _, summary = train(make_config(general={"overwrite": True}, **loop), dataset)
    assert summary.status == "finished"
    assert "drawings of sampled circuits could not be made" in caplog.text
    assert f"the picture {str(curve)!r} could not be made" in caplog.text
    assert not curve.exists(), "the one before was of another model"


def test_a_missing_extra_stops_before_any_work(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(general={"loggers": ["csv", "wandb"]})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"^training\.general\.loggers has 'wandb'.*pip install"):
        DiffusionTrainer(config)
    assert not Path(config.general.output_path).exists()


def test_csv_is_kept_whatever_else_is_asked_for(make_config: MakeConfig) -> None:
    for asked, used in ((["wandb"], ("csv", "wandb")), ([], ("csv",)), (["jsonl", "csv"], ("jsonl", "csv"))):
        assert make_config(general={"loggers": asked}).general.loggers == used


@pytest.mark.parametrize(
    ("loggers", "message"),
    [
        (["csv", "wandbb"], r"training\.general\.loggers\.1: unknown value 'wandbb': did you mean 'wandb'\?"),
        ("csv", r"training\.general\.loggers: expected a list"),
    ],
)
def test_wrong_loggers_are_refused(make_config: MakeConfig, loggers: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(general={"loggers": loggers})
