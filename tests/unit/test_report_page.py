"""The page of a report: its figures are those of the files, it needs nothing else, and files put no markup into it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from quantum_diffusion.circuits.circuit import Circuit, Instruction
from quantum_diffusion.circuits.gates import GATES, SOME_ANGLES
from quantum_diffusion.cli import run_command
from quantum_diffusion.config.schema import ReportConfig, TrainingConfig
from quantum_diffusion.config.store import compose, to_yaml
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.storage import save_dataset
from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, SourceError
from quantum_diffusion.evaluation.metrics import EvaluationMetrics
from quantum_diffusion.evaluation.report.axes import Axis, round_numbers
from quantum_diffusion.evaluation.report.charts import MOST_POINTS, Bars, Curve, bar_chart, line_chart, smoothed
from quantum_diffusion.evaluation.report.drawings import drawing, layered, named
from quantum_diffusion.evaluation.report.markup import element, escaped, table
from quantum_diffusion.evaluation.report.page import write_report
from quantum_diffusion.evaluation.report.results import write_results_folder
from quantum_diffusion.evaluation.report.row_charts import row_chart
from quantum_diffusion.evaluation.report.settings import changed_settings, command_line, typed
from quantum_diffusion.evaluation.report.tables import percent, summary_rows
from quantum_diffusion.evaluation.target_metrics import GateComparison, GroupFigures, TargetMetrics
from quantum_diffusion.tracking.experiment import ExperimentLogger
from tests.unit.test_report import METRICS

HOSTILE = """</script></style><script>alert('1')</script>"><img src=x onerror='alert(2)'>&amp;"""
BELL = Circuit(2, (Instruction("h", (), (0,)), Instruction("cx", (0,), (1,))))
NO_CIRCUITS = GateComparison(0, None, None, None, None)
TARGETS = TargetMetrics(
    num_targets=7,
    samples_per_target=4,
    exact_below=1e-6,
    exact_rate=0.321,
    exact_rate_interval=(0.123, 0.587),
    best_of={"1": 0.321, "2": 0.456, "4": 0.714},
    best_of_intervals={"1": (0.11, 0.61), "2": (0.21, 0.71), "4": (0.352, 0.917)},
    baseline_random_rate=0.013,
    baseline_random_best_of={"1": 0.013, "2": 0.026, "4": 0.057},
    distinct_exact=1.7,
    against_own=GateComparison(5, 3.41, 3.83, 0.4, 0.2),
    qiskit_rate=0.286,
    against_qiskit=GateComparison(2, 2.57, 6.29, 1.0, 0.0),
    against_optimum=GateComparison(3, 3.07, 2.93, 0.0, 0.3),
    infidelity_edges=(0.0, 1e-6, 0.5, 1.0),
    infidelity_counts=[9, 3, 16],
    best_infidelity_counts=[5, 1, 1],
    by_length={"2": GroupFigures(3, 0.5, 1.0, 0.3333), "5": GroupFigures(4, 0.187, 0.5, 0.0)},
    by_allowed_gates={"1": GroupFigures(7, 0.321, 0.714, 0.143)},
    on_training_data=False,
    not_checked=None,
    num_known_circuits=0,
    num_known_targets=0,
    valid_rate=0.964,
    reasons={"valid": 27, "token out of range": 1},
    guidance_scale=1.0,
    steps=5,
    scheduler="masked",
    order="left_to_right",
    seed=3,
    seconds=1.5,
)


class Page(HTMLParser):
    """A page taken apart; a tag that does not fit the open ones is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), "an attribute comes once"
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ("line", "rect", "circle", "path"), "only SVG closes its elements so"
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute: str) -> list[str]:
        return [str(values[attribute]) for _, values in self.tags if attribute in values]


def settings_of(folder: Path, rate: float) -> TrainingConfig:
    values = [f"training.general.output_path={typed(str(folder))}", f"training.training.learning_rate={rate}"]
    return compose("training", TrainingConfig, ["training.general.dataset='my data'", *values])


def make_run(folder: Path, rate: float = 0.003, **metadata: str) -> Path:
    """Leave what a finished training leaves, but for its weights."""
    config = settings_of(folder, rate)
    with ExperimentLogger(folder / "run", "try", config.model_dump(mode="json"), ["csv"]) as log:
        for step in range(1, 41):
            log.log(step, {"loss": 3.0 / step, "learning_rate": rate, "gradient_norm": 1.0 + rate})
        log.log(40, {"validation_loss": 0.8765, "sampled_accuracy": 0.6543})
    (folder / "training_config.yaml").write_text(to_yaml(config))
    known = {"commit": "abc123", "torch": "2.9.1", "device": "cpu", "seed": 7, "validation_loss": 0.8765, "steps": 40}
    (folder / "metadata.yaml").write_text(yaml.safe_dump(known | metadata))
    return folder


def make_evaluation(
    folder: Path, metrics: EvaluationMetrics | TargetMetrics = METRICS, title: str = "asked [2, 2]: got [1, 1]"
) -> Path:
    settings = {"dataset": "data", "model_dir": str(folder.parent / "model"), "num_samples": 100}
    write_results_folder(
        folder,
        metrics.to_dict() | {"evaluation": settings},
        summary_rows(metrics),
        {"srv_22": [BELL, BELL]},
        {"srv_22": "Generate SRV: [2, 2]"},
        {},
        [(title, Circuit(2, BELL.instructions[:1]))],
    )
    return folder


def make_page(tmp_path: Path, *sources: Path | str, title: str | None = None) -> Page:
    path = tmp_path / "pages" / "report.html"
    config = ReportConfig(sources=tuple(map(str, sources)), output_path=str(path), title=title, overwrite=True)
    write_report(config)
    return Page(path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------- contents


def test_a_page_is_whole_and_needs_no_other_file(dataset: CircuitDataset, tmp_path: Path) -> None:
    save_dataset(dataset, tmp_path / "data", {"gate_set": ["h", "cx"], "num_qubits": 3, "seed": 11})
    sources = [make_run(tmp_path / "model"), make_evaluation(tmp_path / "one"), tmp_path / "data"]
    page = make_page(tmp_path, *sources, make_evaluation(tmp_path / "two", TARGETS))
    assert page.raw.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link|<iframe|\bsrc=", page.raw)
    assert {value[0] for value in page.values("href")} == {"#"}
    anchors = page.values("id")
    assert len(set(anchors)) == len(anchors)
    assert {value[1:] for value in page.values("href")} <= set(anchors), "every link leads somewhere"
    charts = [values for tag, values in page.tags if tag == "svg"]
    assert len(charts) > 10
    assert all(values["role"] == "img" and values["aria-label"] for values in charts)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings)), "no level is left out"


@pytest.mark.parametrize("metrics", [METRICS, TARGETS], ids=["srv", "targets"])
def test_the_figures_of_an_evaluation_are_those_of_its_file(
    metrics: EvaluationMetrics | TargetMetrics, tmp_path: Path
) -> None:
    folder = make_evaluation(tmp_path / "evaluation", metrics)
    page = make_page(tmp_path, folder)
    said = page.text + " ".join(page.values("aria-label"))
    values = json.loads((folder / "metrics.json").read_text())
    shares = {key: value for key, value in values.items() if key not in ("exact_below", "guidance_scale", "seconds")}
    for key in ("srv_accuracy_by_prompt", "srv_accuracy_by_entangled", "best_of", "baseline_random_best_of"):
        shares |= {f"{key}, {part}": value for part, value in values.get(key, {}).items()}
    shown = 0
    for key, value in shares.items():
        if isinstance(value, float) and 0 <= value <= 1:
            assert percent(value) in said, key
            shown += 1
    assert shown >= 8
    for key in ("srv_accuracy_interval", "exact_rate_interval"):
        for bound in values.get(key, []):
            assert percent(bound) in said, key
    for group in [*values.get("by_length", {}).values(), *values.get("by_allowed_gates", {}).values()]:
        for key in ("exact_rate", "solved_rate", "baseline_random_solved_rate"):
            assert percent(group[key]) in said
    for key in ("against_own", "against_qiskit", "against_optimum"):
        for name in ("mean_gates", "mean_gates_other"):
            assert key not in values or f"{values[key][name]:.2f}" in said
    assert "token out of range" in said
    assert "asked [2, 2]: got [1, 1]" in said
    assert "circuit: 2 qubits, h on q0, cx on q0 q1" in said


def test_a_run_tells_its_settings_figures_and_provenance(tmp_path: Path) -> None:
    page = make_page(tmp_path, make_run(tmp_path / "model", 0.0123))
    for text in ("abc123", "2.9.1", "0.8765", "training.training.learning_rate 0.0123", "finished"):
        assert text in page.text, text
    assert "training.training.learning_rate=0.0123" in page.text, "in the command"
    labels = " ".join(page.values("aria-label"))
    for text in ("validation 0.8765 at 40", "as logged from 3 at 1 to 0.075 at 40", "65.4 % at 40"):
        assert text in labels, text


def test_a_data_set_tells_its_counts_and_that_it_is_right(dataset: CircuitDataset, tmp_path: Path) -> None:
    save_dataset(dataset, tmp_path / "data", {"gate_set": ["h", "cx"], "num_qubits": 3, "seed": 11, "unknown_key": 1})
    page = make_page(tmp_path, tmp_path / "data")
    for prompt, count in dataset.prompt_counts.items():
        assert f"{prompt} {count}" in page.text
    assert "100.0 % verified" in page.text
    assert "Every circuit is valid" in page.text
    assert "datasets.seed=11" in page.text
    assert "unknown_key" not in page.text, "generate takes no such key"


def test_several_sources_stand_side_by_side(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "model", 0.0123), make_run(tmp_path / "other", 0.0456)
    better = replace(METRICS, srv_accuracy=0.987)
    page = make_page(
        tmp_path, first, second, make_evaluation(tmp_path / "one"), make_evaluation(tmp_path / "two", better)
    )
    assert "Runs side by side" in page.text
    assert "training.learning_rate 0.0123 0.0456" in page.text
    assert re.search(r"SRV accuracy, \S*one 95.0 % \(88.8 % to 97.8 %\) –", page.text), "of the first run's model alone"
    assert "SRV accuracy 95.0 % (88.8 % to 97.8 %) 98.7 % (88.8 % to 97.8 %)" in page.text
    apart = make_page(tmp_path, tmp_path / "one", make_evaluation(tmp_path / "targets", TARGETS)).text
    assert "side by side" not in apart, "figures of other kinds are not compared"
    both = [label for label in page.values("aria-label") if str(first) in label and str(second) in label]
    assert [label.partition(" by")[0] for label in both][:2] == ["Training loss", "Validation loss"]


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path / "evaluation", TARGETS)
    values = json.loads((folder / "metrics.json").read_text())
    for key in ("against_optimum", "qiskit_rate", "by_allowed_gates", "evaluation", "not_checked"):
        del values[key]  # of an earlier version
    (folder / "metrics.json").write_text(json.dumps(values))
    (folder / "failed" / "00001.qasm").unlink()
    (folder / "failed").rmdir()
    page = make_page(tmp_path, folder)
    assert "above optimum" not in page.text
    assert "Solved by gate subset" not in page.text
    assert "was made by a version that kept no failed circuits" in page.text
    assert "The settings are not recorded" in page.text

    model = make_run(tmp_path / "model")
    for path in sorted((model / "run").iterdir()):
        path.unlink()
    (model / "run").rmdir()
    page = make_page(tmp_path, model)
    assert "without the record of its run" in page.text
    assert "0.8765" in page.text
    assert "svg" not in {tag for tag, _ in page.tags}
    (model / "training_config.yaml").unlink()
    (model / "model.safetensors").touch()
    assert "The settings are not recorded" in make_page(tmp_path, model).text


def test_a_model_brings_its_evaluation_and_folders_what_is_in_them(dataset: CircuitDataset, tmp_path: Path) -> None:
    model = make_run(tmp_path / "work" / "models" / "deep" / "first")
    make_evaluation(model / "evaluation")
    save_dataset(dataset, tmp_path / "work" / "data", {})
    (tmp_path / "work" / "notes").mkdir()
    (tmp_path / "work" / "notes" / "metrics.json").write_text("{}")
    for source in (tmp_path / "work", tmp_path / "work" / "models" / ".."):
        assert "1 training run, 1 evaluation, 1 data set" in make_page(tmp_path, source).text
    assert "1 training run, 1 evaluation." in make_page(tmp_path, model, model / "run", model / "evaluation").text
    assert "1 training run." in make_page(tmp_path, "pretrained:srv").text


# -------------------------------------------------------------------------------------------------- hostile


def test_no_file_can_put_markup_into_the_page(tmp_path: Path) -> None:
    prompts = {f"Generate SRV: [1, 2]{HOSTILE}": 0.5, HOSTILE: 0.25}
    metrics = replace(
        METRICS, srv_accuracy_by_prompt=prompts, reasons={"valid": 1, HOSTILE: 2}, gate_count_by_gate={HOSTILE: 1.0}
    )
    model = make_run(tmp_path / f"m {HOSTILE.replace('/', '|')}", commit=HOSTILE, **{f"key{HOSTILE}": "x\0\x1b[2J"})
    evaluation = make_evaluation(tmp_path / "evaluation", metrics, title=HOSTILE)
    page = make_page(tmp_path, model, evaluation, title=HOSTILE)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "iframe", "link"})
    assert not [name for _, values in page.tags for name in values if name.startswith("on")]
    assert page.text.count("<script>alert('1')</script>") > 5, "it is shown as it is"
    assert not re.search("[\0-\x08\x0b-\x1f\x7f]", page.raw)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"), ("a\0b\x1bc", "a�b�c"), ("\ud800", "�"), ("ä ⊕\n", "ä ⊕\n")],
)
def test_text_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert element("p", text, title=text) == f'<p title="{shown}">{shown}</p>'
    assert escaped(escaped(text)) == shown, "once"


def spoil(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


DAMAGED: list[tuple[str, Callable[[Path], None], str]] = [
    ("evaluation", spoil("metrics.json", "{"), "metrics.json' is not what an evaluation writes"),
    ("evaluation", spoil("metrics.json", "[1]"), "it holds no figures by name"),
    ("evaluation", spoil("metrics.json", '{"seed": 1}'), "it has neither srv_accuracy nor exact_rate"),
    ("evaluation", spoil("metrics.json", '{"srv_accuracy": "high"}'), "metrics.json' is not what"),
    (
        "evaluation",
        spoil("metrics.json", json.dumps(METRICS.to_dict() | {"valid_rate": float("nan")})),
        "no number that occurs",
    ),
    (
        "evaluation",
        spoil("metrics.json", json.dumps(TARGETS.to_dict() | {"best_of": {"4": 1, "x": 1}})),
        "numbers of tries",
    ),
    (
        "evaluation",
        spoil(
            "metrics.json", json.dumps(TARGETS.to_dict() | {"by_length": {"x": TARGETS.to_dict()["by_length"]["2"]}})
        ),
        "do not belong",
    ),
    ("evaluation", spoil("metrics.json", json.dumps(METRICS.to_dict() | {"num_samples": 10**400})), "metrics.json"),
    ("evaluation", spoil("metrics.json", json.dumps(METRICS.to_dict() | {"valid_rate": 10**400})), "metrics.json"),
    ("evaluation", spoil("metrics.json", json.dumps(TARGETS.to_dict() | {"infidelity_counts": [1]})), "histograms"),
    ("evaluation", spoil("circuits/srv_22/00001.qasm", "qreg q[1000000000];"), "00001.qasm"),
    ("evaluation", spoil("failed/00001.qasm", "x" * 70_000), "larger than"),
    ("model", spoil("run/run.yaml", "[1, 2"), "run.yaml"),
    ("model", spoil("run/run.yaml", "name: x"), "run.yaml' is no record of a run"),
    ("model", spoil("metadata.yaml", "- 1\n- 2"), "metadata.yaml"),
    (
        "model",
        spoil(
            "metadata.yaml",
            "a: &a [1, 2]\n"
            + "".join(
                f"{b}: &{b} [*{a}, *{a}]\n"
                for a, b in zip("abcdefghijklmnopqrstuvw", "bcdefghijklmnopqrstuvwx", strict=True)
            ),
        ),
        "values",
    ),
    ("data", spoil("config.yaml", "format: quantum_diffusion.dataset"), "has format version"),
]


@pytest.mark.parametrize(("source", "damage", "message"), DAMAGED, ids=[message for _, _, message in DAMAGED])
def test_a_damaged_file_is_told_in_one_line(
    source: str,
    damage: Callable[[Path], None],
    message: str,
    dataset: CircuitDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(tmp_path / "model")
    make_evaluation(tmp_path / "evaluation")
    save_dataset(dataset, tmp_path / "data", {})
    damage(tmp_path / source)
    page = tmp_path / "report.html"
    assert run_command("report", [f"report.sources=[{tmp_path / source}]", f"report.output_path={page}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not page.exists()


def test_what_is_no_source_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for source, message in {
        str(tmp_path / "nothing"): "does not exist: give the folder of a model, an evaluation or a data set",
        str(tmp_path / "file"): "is a file: give the folder",
        str(tmp_path / "empty"): r"nothing to report on in .*: expected a model \(with run/run\.yaml",
        "pretrained:srw": "did you mean 'srv'",
    }.items():
        with pytest.raises(SourceError, match=message):
            make_page(tmp_path, source)


def test_only_an_earlier_report_is_replaced_and_only_when_asked_for(tmp_path: Path) -> None:
    model, page = make_run(tmp_path / "model"), tmp_path / "new" / "report.html"

    def write(overwrite: bool, path: Path = page) -> None:
        write_report(ReportConfig(sources=(str(model),), output_path=str(path), overwrite=overwrite))

    write(False)
    with pytest.raises(ConfigError, match=r"is an earlier report: set report\.overwrite=true"):
        write(False)
    write(True)
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]
    page.write_text("<html>precious</html>")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="is there and is no report of ours"):
            write(overwrite)
    assert page.read_text() == "<html>precious</html>"
    (tmp_path / "folder.html").mkdir()
    for name in ("folder.html", "report.txt", "model/metadata.yaml/report.html"):
        with pytest.raises(QuantumDiffusionError):
            write(True, tmp_path / name)


# --------------------------------------------------------------------------------------- settings, charts


@pytest.mark.parametrize(
    "values",
    [
        ["training=quick_test_srv"],
        ["training=quick_test_unitary", "training.training.max_steps=7"],
        ["training=quick_test_unet", "training.general.model_name='a, {b}: [c] 1e3'", "training.general.seed=5"],
        ["training.general.experiment_name='it\\'s \\\\'", "training.model.params={width: 24, depth: 1}"],
    ],
)
def test_the_command_gives_the_settings_again(values: list[str]) -> None:
    config = compose("training", TrainingConfig, ["training.general.dataset='1 data'", *values])
    changed = changed_settings("training", config.model_dump(mode="json"))
    again = [f"{one.key}={typed(one.value)}" for one in changed]
    assert compose("training", TrainingConfig, again) == config
    assert len(again) < 45, "defaults are left out"
    assert command_line("train", changed).startswith("quantum-diffusion train \\\n  ")


def geometry(chart: str, kind: str) -> list[dict[str, float]]:
    numbers = ("x", "y", "width", "height")
    return [
        {name: float(str(values[name])) for name in numbers}
        for tag, values in Page(chart).tags
        if tag == "rect" and values.get("class") == kind
    ]


def test_bars_are_as_long_as_their_values() -> None:
    columns = geometry(str(bar_chart("t", ["a", "b"], [Bars("", [1.0, 3.0])], "x")), "bar")
    assert columns[1]["height"] == pytest.approx(3 * columns[0]["height"], rel=1e-3)
    assert columns[0]["y"] + columns[0]["height"] == pytest.approx(columns[1]["y"] + columns[1]["height"], abs=0.02)
    rows = geometry(str(row_chart("t", ["a", "b"], Bars("", [0.25, 1.0]), percent=True)), "bar")
    assert rows[1]["width"] == pytest.approx(4 * rows[0]["width"], rel=1e-3)
    assert rows[1]["width"] == geometry(str(row_chart("t", ["a"], Bars("", [1.0]), percent=True)), "track")[0]["width"]
    stacked = geometry(str(bar_chart("t", ["a"], [Bars("p", [1.0]), Bars("q", [2.0])], "x", stacked=True)), "bar")
    assert stacked[1]["y"] + stacked[1]["height"] == pytest.approx(stacked[0]["y"], abs=0.02)


def test_curves_lie_within_the_chart_and_leave_out_what_is_no_number() -> None:
    points = [(1.0, 5.0), (2.0, float("nan")), (3.0, float("inf")), (4.0, 1e300), (5.0, 1.0)]
    chart = Page(str(line_chart("t", [Curve("c", points)], "step")))
    (line,) = [str(values["d"]) for tag, values in chart.tags if tag == "path"]
    places = [tuple(map(float, pair.split())) for pair in line.removeprefix("M").split("L")]
    assert len(places) == 2
    assert places[0][0] < places[1][0]
    assert places[0][1] < places[1][1], "a falling loss falls on the page"
    assert all(0 <= x <= 420 and 0 <= y <= 250 for x, y in places)
    assert line_chart("t", [Curve("c", [(1.0, float("nan"))])], "x") is None
    assert bar_chart("t", [], [], "x") is None
    many = str(line_chart("t", [Curve("c", [(float(x), float(x)) for x in range(5000)])], "x"))
    assert many.count("L") <= MOST_POINTS + 1


def test_the_running_mean_of_a_curve() -> None:
    assert smoothed([]) == []
    assert smoothed([(1.0, 2.0)]) == [(1.0, 2.0)]
    mean = smoothed([(float(step), float(step % 2)) for step in range(40)])  # over two steps
    assert [value for _, value in mean] == [0.5] * 39
    assert mean[-1][0] == 39
    spoilt = smoothed([(1.0, float("nan")), *((float(step), 2.0) for step in range(2, 60))])
    assert [value for _, value in spoilt] == pytest.approx([2.0] * 57), "a NaN is left out, and nothing after it"


ENDS = [[0.0, 1.0], [5.0, 5.0], [0.0, 0.0], [-3.0, 7.0], [1e-9, 3e-9], [1e99, -1e99], [0.1, 1e6], [1e9, 1e9 + 1e-3]]


@pytest.mark.parametrize(
    ("values", "logarithmic"), [(ends, log) for ends in ENDS for log in (False, True) if not log or min(ends) > 0]
)
def test_an_axis_has_its_values_and_its_numbers_between_its_ends(values: list[float], logarithmic: bool) -> None:
    axis = Axis.over(values, 200.0, 10.0, padded=True, logarithmic=logarithmic)
    for place in [axis.place(value) for value in values] + [place for place, _ in axis.ticks]:
        assert 10.0 <= place <= 200.0
    assert len(axis.ticks) <= 12
    assert round_numbers(0.0, 100.0) == [0, 20, 40, 60, 80, 100]


@pytest.mark.parametrize("name", GATES)
def test_every_gate_is_drawn(name: str) -> None:
    gate = GATES[name]
    qubits, angles = tuple(range(1, gate.num_qubits + 1)), SOME_ANGLES[: gate.num_angles]
    instruction = Instruction(name, qubits[: gate.num_controls], qubits[gate.num_controls :], angles)
    circuit = Circuit(4, (instruction,))
    page = Page(str(drawing(circuit, "title")))
    (label,) = [value for value in page.values("aria-label") if value.startswith("circuit")]
    assert f"{named(instruction)} on q1" in label
    assert all(f"{angle:g}" in label for angle in angles)
    assert len([1 for _, values in page.tags if values.get("class") == "wire"]) == 4


def test_gates_that_would_cross_stand_in_layers_of_their_own() -> None:
    far = Instruction("cx", (0,), (2,))
    assert layered(Circuit(3, (far, Instruction("h", (), (1,)), Instruction("h", (), (0,))))) == [0, 1, 1]
    assert layered(Circuit(2, ())) == []


def test_a_table_names_its_columns_and_rows() -> None:
    page = Page(str(table("caption", ["", "value"], [("name", "1"), ("  part", "2")], numeric=[1])))
    assert [values.get("scope") for tag, values in page.tags if tag == "th"] == ["col", "col", "row", "row"]
    assert page.text == "caption value name 1 part 2"
