"""Every option is documented, reachable from the command line, read by code, and survives a round trip through YAML."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import ValidationError

import quantum_diffusion
from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.config.schema import (
    GAUSSIAN_SAMPLERS,
    STEP_ENCODERS,
    DatasetConfig,
    GaussianParams,
    MaskedParams,
    ModelConfig,
    Simplification,
    Symmetry,
    TrainingConfig,
    TransformerParams,
    UNetParams,
)
from quantum_diffusion.config.store import SECTIONS, compose, parse_arguments, to_yaml
from quantum_diffusion.config.validation import Part, Section, describe_values, validate
from quantum_diffusion.device import DEVICE_NAMES
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.help import describe_keys, help_text, usage
from quantum_diffusion.pipeline.augmentation import SYMMETRIES
from quantum_diffusion.tasks.candidates import SIMPLIFIERS
from quantum_diffusion.tasks.registry import TASKS
from quantum_diffusion.training.optim import LR_SCHEDULES, OPTIMIZERS

REQUIRED = {
    "training.general.dataset": "./data",
    "evaluation.dataset": "./data",
    "evaluation.model_dir": "./model",
    "sample.model_dir": "./model",
    "sample.srv": "[1,2,2]",
    "inspect.dataset": "./data",
}
UNET = ["training.model.type=unet", "training.scheduler.type=ddim"]
VARIANTS = [
    ("datasets", []),
    ("training", []),
    ("training", UNET),
    ("training", ["training.unitary_encoder.type=convolution"]),
    ("evaluation", []),
    ("sample", []),
    ("inspect", []),
    ("runs", []),
]


def required(section: str) -> list[str]:
    return [f"{key}={value}" for key, value in REQUIRED.items() if key.startswith(f"{section}.")]


def sections() -> Iterator[type[Section]]:
    """Every section class of the schema, nested ones included."""
    waiting = list(SECTIONS.values())
    while waiting:
        schema = waiting.pop()
        yield schema
        for field in schema.model_fields.values():
            kinds = [field.annotation, *get_args(field.annotation)]
            waiting += [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]


FIELDS = sorted({(schema.__name__, name) for schema in sections() for name in schema.model_fields})


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_meaning(section: str) -> None:
    keys = list(describe_keys(SECTIONS[section], section))
    assert keys
    for key, values, default, meaning in keys:
        assert values
        assert key.startswith(f"{section}.")
        assert default
        assert len(meaning.removeprefix("[").split()) >= 1, f"{key} has no doc line"
        assert meaning.rstrip().endswith("."), f"{key}: {meaning!r}"


def test_every_leaf_of_the_schema_is_described() -> None:
    described = {key.rpartition(".")[2] for name, schema in SECTIONS.items() for key, *_ in describe_keys(schema, name)}
    nested = {
        *("general", "training", "model", "text_encoder", "scheduler", *STEP_ENCODERS),
        *("params", "model_params", "edit"),
    }
    assert {name for _, name in FIELDS} - nested <= described


def test_absurd_numbers_are_refused_by_the_schema() -> None:
    """What reaches numpy, torch or the system as a size there ends in a crash, or in a library's own words."""
    # The model's sizes bound these; ranks have a message of their own.
    told_by_the_model = {"keep", "fixed_qubits", "coupling", "srv", "negative_srv"}
    checked = 0
    for schema in sections():
        for name, field in schema.model_fields.items():
            if "whole number" not in describe_values(field) or name in told_by_the_model:
                continue
            problems = set()
            for value in (10**30, [10**30, 10**30]):
                with pytest.raises(ValidationError) as refused:
                    schema.model_validate({name: value})
                problems |= {error["type"] for error in refused.value.errors() if error["loc"][0] == name}
            assert "less_than_equal" in problems, f"{schema.__name__}.{name}: {problems}"
            checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    "given", ["training.num_threads=4097", "training.num_workers=100000", "model.params.width=1000000", "seed=-1"]
)
def test_a_size_beyond_all_computers_names_its_key(given: str) -> None:
    key, _, value = f"training.{given}".replace("training.seed", "training.general.seed").rpartition("=")
    with pytest.raises(ConfigError, match=rf"{re.escape(key)}: expected \d+ or (less|more), given '?{value}"):
        compose("training", TrainingConfig, ["training.general.dataset=d", f"{key}={value}"])


@pytest.mark.parametrize(("section", "overrides"), VARIANTS)
def test_every_key_is_reachable_from_the_command_line(section: str, overrides: list[str]) -> None:
    config = compose(section, SECTIONS[section], [*required(section), *overrides])
    flat = dict(_flatten(config.model_dump(mode="json"), section))
    # Each key is given its own value again: an unknown key or one of another type would be refused.
    again = compose(section, SECTIONS[section], [f"{key}={_typed(value)}" for key, value in flat.items()])
    assert again == config
    chosen = {type(part.params).__name__ for _, part in config if hasattr(part, "params")}
    expected = {
        key
        for key, _, _, meaning in describe_keys(SECTIONS[section], section)
        if not meaning.startswith("[") or f"{meaning[1:].partition(']')[0]}Params" in chosen
    }
    assert set(flat) == expected


def _flatten(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "[" + ",".join(map(_typed, value)) + "]" if isinstance(value, list) else str(value)


def test_every_key_is_read_by_code() -> None:
    """No option that nothing reads: each name occurs in code (not in texts), in the schema only in its properties."""
    package = Path(quantum_diffusion.__file__).parent
    names = {*STEP_ENCODERS}  # each task names its own
    for file in package.rglob("*.py"):
        roots: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
        if file.parent.name == "schema":
            roots = [
                node
                for node in ast.walk(roots[0])
                if isinstance(node, ast.FunctionDef) and "property" in map(ast.unparse, node.decorator_list)
            ]
        for node in (node for root in roots for node in ast.walk(root)):
            names.add(getattr(node, "attr", "") or getattr(node, "arg", "") or "")
    unread = []
    for schema in sections():
        for name, field in schema.model_fields.items():
            has_choice = not (get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1)
            if has_choice and name not in names:
                unread.append(f"{schema.__name__}.{name}")
    assert not unread


def test_names_in_the_schema_are_the_names_in_the_code() -> None:
    loop = SECTIONS["training"].model_fields["training"].annotation
    assert loop is not None
    assert set(get_args(loop.model_fields["optimizer"].annotation)) == set(OPTIMIZERS)
    assert set(get_args(loop.model_fields["lr_scheduler"].annotation)) == set(LR_SCHEDULES)
    assert get_args(Simplification) == tuple(SIMPLIFIERS)
    assert get_args(Symmetry) == tuple(SYMMETRIES)
    assert {task.step_encoder for task in TASKS.values()} == set(STEP_ENCODERS)
    assert {"auto", "cpu"} <= set(DEVICE_NAMES)


def test_every_type_of_a_part_has_its_parameters() -> None:
    parts = [schema for schema in sections() if issubclass(schema, Part)]
    assert len(parts) == 6
    for part in parts:
        assert set(get_args(part.model_fields["type"].annotation)) == set(part.kinds)


@pytest.mark.parametrize(("section", "overrides"), VARIANTS)
def test_yaml_round_trip(section: str, overrides: list[str]) -> None:
    config = compose(section, SECTIONS[section], [*required(section), *overrides])
    text = to_yaml(config)
    assert validate(SECTIONS[section], yaml.safe_load(text), section) == config
    assert to_yaml(validate(SECTIONS[section], yaml.safe_load(text), section)) == text


def test_a_yaml_round_trip_keeps_hard_values() -> None:
    overrides = [
        "datasets.output_path='./a folder: with, odd \"letters\" é'",
        "datasets.coupling=[[0,1],[1,2]]",
        "datasets.generation_gate_set=[h]",
        "datasets.seed=12345678901234567890",
    ]
    config = compose("datasets", SECTIONS["datasets"], overrides)
    assert validate(SECTIONS["datasets"], yaml.safe_load(to_yaml(config)), "datasets") == config
    assert config.model_dump()["coupling"] == ((0, 1), (1, 2))
    assert config.model_dump()["output_path"] == './a folder: with, odd "letters" é'


def test_values_never_change() -> None:
    config = compose("datasets", SECTIONS["datasets"])
    with pytest.raises(ValueError, match="frozen"):
        config.num_qubits = 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", GAUSSIAN_SAMPLERS)
def test_every_gaussian_sampler_takes_gaussian_parameters(kind: str) -> None:
    config = compose("training", SECTIONS["training"], [*required("training"), f"training.scheduler.type={kind}"])
    assert type(config.model_dump()["scheduler"]["params"]) is dict
    assert isinstance(config.scheduler.params, GaussianParams)  # type: ignore[attr-defined]


def test_parameters_are_of_the_class_the_type_names() -> None:
    assert isinstance(ModelConfig.model_validate({"type": "unet"}).params, UNetParams)
    assert isinstance(ModelConfig.model_validate({}).params, TransformerParams)
    assert isinstance(ModelConfig(type="unet", params=UNetParams(clr_dim=8)).params, UNetParams)
    with pytest.raises(ConfigError, match=r"^ModelConfig\.params: expected nested keys"):
        ModelConfig(type="unet", params=TransformerParams())
    assert MaskedParams().sample_steps is None


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("training.training.optimizer", "adam, adamw, muon"),
        ("training.training.ema_decay", "number >= 0 and < 1, or null"),
        ("training.training.precision", "auto, 32, bf16, 16"),
        ("training.model.params.model_features", "list of whole number >= 1 and <= 32768"),
        ("training.model.params.t_emb_size", "whole number >= 2 and <= 32768 and multiple of 2"),
        ("training.general.verbose", "true, false"),
        ("training.general.dataset", "text"),
    ],
)
def test_values_are_described(key: str, values: str) -> None:
    assert {name: text for name, text, *_ in describe_keys(SECTIONS["training"], "training")}[key] == values


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_key_and_preset(command: str) -> None:
    text = help_text(command)
    entry = COMMANDS[command]
    for key, values, default, meaning in describe_keys(SECTIONS[entry.section], entry.section):
        assert re.search(rf"^  {re.escape(key)} \(.*; {re.escape(default)}\)$", text, re.MULTILINE)
        in_full = " ".join(help_text(command, ["--help", key]).split())
        assert in_full == " ".join(help_text(command, [key.partition(".")[2]]).split())
        for said in (key, values, meaning, "required" if default == "required" else f"default: {default}"):
            assert said in in_full
    assert command in usage()
    if command == "train":
        presets = text.partition("\npresets:\n")[2].partition("\n  or a file")[0]
        assert {"default", "quick_test_srv"} <= set(re.split(r"[,\s]+", presets))
    if command == "train":
        assert help_text(command, ["--help", "learning_rate"]) == help_text(
            command, ["training.training.learning_rate"]
        )
    with pytest.raises(ConfigError, match=r"unknown key 'no_such_key'"):
        help_text(command, ["--help", "no_such_key"])


@pytest.mark.parametrize("columns", ["40", "200"])
def test_help_keeps_to_the_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    most = 40 if columns == "40" else 120
    prose = [line for line in help_text("sample").splitlines() if line.startswith("      ")]
    assert prose
    assert max(map(len, prose)) <= most


def test_help_loads_nothing_heavy_and_what_is_shown_no_torch() -> None:
    code = (
        "import sys\n"
        "from quantum_diffusion.cli import run_command\n"
        "from quantum_diffusion.commands import COMMANDS\n"
        "for command in COMMANDS:\n"
        "    status = run_command(command, ['--help'])\n"
        "    heavy = {'torch', 'hydra', 'diffusers', 'qiskit', 'matplotlib', 'lightning', 'scipy'} & set(sys.modules)\n"
        "    assert status == 0\n"
        "    assert not heavy, (command, heavy)\n"
        "import quantum_diffusion.console, quantum_diffusion.data.generation\n"
        "assert 'torch' not in sys.modules, 'generate would take seconds to start'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    for command in COMMANDS:
        assert f"usage: quantum-diffusion {command}" in result.stdout


def test_configuration_folder_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quantum_diffusion, "__file__", str(tmp_path / "src" / "quantum_diffusion" / "__init__.py"))
    with pytest.raises(ConfigError, match=r"presets .* are missing .* install the package again"):
        compose("datasets", SECTIONS["datasets"])


@pytest.mark.parametrize("quote", ["", "'"])
def test_home_is_known_in_every_path(monkeypatch: pytest.MonkeyPatch, quote: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    general = ["dataset=~/data", "output_path=~", "resume=~/a-b_c.ckpt", "model_name=~"]
    keys = [f"training.general.{key}".replace("=", f"={quote}") + quote for key in general]
    found = compose("training", TrainingConfig, keys).general
    assert (found.dataset, found.output_path) == ("/home/me/data", "/home/me")
    assert (found.resume, found.model_name) == ("/home/me/a-b_c.ckpt", "~")
    stream = compose("training", TrainingConfig, [f"training.general.dataset={quote}stream:~/set.yaml{quote}"])
    assert stream.general.dataset == "stream:/home/me/set.yaml"


def test_where_there_is_no_home_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(ConfigError, match=r"datasets\.output_path: '~/x' begins with ~, but you have no home folder"):
        validate(DatasetConfig, {"output_path": "~/x"}, "datasets")
    assert validate(DatasetConfig, {"output_path": "x~"}, "datasets").output_path == "x~"


@pytest.mark.parametrize("name", ["..", "../x", "/x", "a/../../b", "a/.."])
def test_a_model_stays_in_its_output_path(name: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.general\.model_name: '.*' leads out of output_path"):
        validate(TrainingConfig, {"general": {"dataset": "x", "model_name": name}}, "training")


@pytest.mark.parametrize("name", ["a/b", "..a", "a..", "it's ${x} [12]", "a*b?", "-rf"])
def test_any_other_name_is_a_name(name: str) -> None:
    general = validate(TrainingConfig, {"general": {"dataset": name, "model_name": name}}, "training").general
    assert general.model_folder == Path(general.output_path) / name
    assert general.dataset == name


@pytest.mark.parametrize("name", ["a\0b", "a\udcff"])
def test_a_name_that_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"datasets\.output_path: .* is not valid UTF-8: rename it"):
        validate(DatasetConfig, {"output_path": name}, "datasets")


def test_home_is_known_in_sweeps() -> None:
    swept = ["training.general.output_path=~/a,~/b/${training.general.seed},c", "training.general.dataset=./data"]
    assert parse_arguments(["-m", *swept], "training").overrides[0] == (
        "++training.general.output_path='~/a','~/b/${training.general.seed}',c"
    )
