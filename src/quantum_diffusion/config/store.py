"""Turns a command line and presets into a typed configuration, through Hydra.

Hydra selects, merges and sweeps; only the schema decides which keys and values are valid, so that a wrong one gives a
one-line message instead of a stack trace.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quantum_diffusion.config.command_line import Arguments, keys_in, parse_arguments
from quantum_diffusion.config.presets import (
    GROUPS,
    MISSING,
    SUFFIXES,
    Presets,
    Values,
    completed,
    config_folder,
    path_of,
    read_yaml,
)
from quantum_diffusion.config.schema import SECTIONS, DatasetConfig
from quantum_diffusion.config.validation import Part, Section, nested_sections, validate
from quantum_diffusion.errors import ConfigError, first_line
from quantum_diffusion.files import yaml_text

__all__ = [
    "SECTIONS",
    "compose",
    "config_folder",
    "dataset_preset",
    "parse_arguments",
    "preset_names",
    "run_hydra",
    "running_job",
    "section",
    "show",
    "to_yaml",
]

SectionT = TypeVar("SectionT", bound=Section)

_PRESET_TYPES = "preset_types"
"""Key beside a preset's values for the type it gives to each part, which `_complete` compares with the final one."""


def preset_names(group: str) -> list[str]:
    """Return our presets of a group ("datasets", "training", "evaluation", "debug"), sorted."""
    return Presets().names(group)


def dataset_preset(name: str) -> DatasetConfig:
    """Return the configuration of a preset of `conf/datasets`, or of a YAML file of the same form.

    Args:
        name: Name of the preset ("quick_test_srv"), or path of a file that ends in ".yaml".

    Raises:
        ConfigError: The preset or file does not exist or is invalid.
    """
    presets = Presets()
    file = path_of(name) if name.endswith(SUFFIXES) else presets.find("datasets", name)
    composed = OmegaConf.create({"datasets": presets.load("datasets", file)})
    try:
        return section(composed, "datasets", DatasetConfig)
    except ConfigError as problem:
        raise ConfigError(f"{name}: {problem}") from None


# ---------------------------------------------------------------------------------------------------- Hydra


def run_hydra(arguments: Arguments, task: Callable[[DictConfig], None]) -> None:
    """Let Hydra compose the configuration of every job and call `task` with it.

    Args:
        arguments: What to run.
        task: Called once, or for every job of a sweep, possibly in another process. Hydra discards its return value; it
            must not raise.

    Raises:
        ConfigError: Hydra refuses the arguments, or cannot create its folder.
    """
    _register(arguments)
    with _hydra_errors():
        if arguments.options:
            _show_with_hydra(arguments, task)
        else:
            _run_with_hydra(arguments, task)


def _run_with_hydra(arguments: Arguments, task: Callable[[DictConfig], None]) -> None:
    """Do the work of `hydra.main`, which would compose everything twice, at 0.1 s each."""
    from hydra.core.global_hydra import GlobalHydra

    with _hydra(job_name="jobs"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        if arguments.is_sweep:
            with _composed_once():
                hydra.multirun("config", task, [*arguments.overrides, "hydra.mode=MULTIRUN"])
        else:
            hydra.run("config", task, [*arguments.overrides, "hydra.mode=RUN"])


def _hydra(job_name: str) -> AbstractContextManager[None]:
    """Start Hydra with the registered configurations; naming a module, an empty one, spares it a look at the stack."""
    from hydra import initialize_config_module

    started: AbstractContextManager[None] = initialize_config_module(__package__, version_base="1.3", job_name=job_name)
    return started


@contextmanager
def _composed_once() -> Iterator[None]:
    """Keep sweepers from composing all jobs merely to validate them; they are composed again when they run."""
    from hydra.plugins.sweeper import Sweeper

    validate = Sweeper.validate_batch_is_legal
    Sweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = validate  # type: ignore[method-assign]


def _show_with_hydra(arguments: Arguments, task: Callable[[DictConfig], None]) -> None:
    import hydra

    own = sys.argv
    sys.argv = [own[0], *arguments.overrides, *arguments.options, *(["-m"] if arguments.is_sweep else [])]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints its own errors and exits
    try:
        hydra.main(config_path=None, config_name="config", version_base="1.3")(task)()
    finally:
        sys.argv = own


def running_job() -> tuple[int, list[str]]:
    """Return the number and the overrides of the sweep job that Hydra is running."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get().job.num, _overrides_of_job()


def compose(name: str, schema: type[SectionT], overrides: Sequence[str] = ()) -> SectionT:
    """Compose presets and overrides without a command line, for Python users and tests.

    Example:
        >>> compose("datasets", DatasetConfig, ["datasets=quick_test_srv"]).num_qubits
        3
    """
    arguments = parse_arguments(overrides, name)
    return section(_compose(arguments), name, schema, arguments.overrides)


def show(arguments: Arguments) -> str:
    """Return the output of `--cfg` as YAML: the command's section with all defaults, and Hydra's own configuration.

    Used as a preset file, `training=FILE.yaml`, it gives the same configuration again.

    Raises:
        ConfigError: A value cannot be resolved, or the package does not exist.
    """
    composed, name = _compose(arguments, with_hydra=arguments.shown != "job"), arguments.section
    _complete(composed, name, arguments.overrides)
    sections = {"job": [name], "hydra": ["hydra"]}.get(str(arguments.shown), [name, "hydra"])
    shown: Any = {}
    for key in sections:
        try:
            shown[key] = OmegaConf.to_container(composed[key], resolve=arguments.resolve)
        except OmegaConfBaseException as problem:
            raise ConfigError(f"{key}: {first_line(problem)}") from None
    for key in arguments.package.split(".") if arguments.package else []:
        if not isinstance(shown, dict) or key not in shown:
            raise ConfigError(f"--package={arguments.package}: there is no {key!r}: give a dotted key, e.g. {name}")
        shown = shown[key]
    header = f"# @package {arguments.package or '_global_'}\n"
    return header + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).removesuffix("...\n")


def _compose(arguments: Arguments, with_hydra: bool = False) -> DictConfig:
    from hydra import compose as hydra_compose

    _register(arguments)
    with _hydra_errors(), _hydra(job_name="app"):
        return hydra_compose("config", overrides=list(arguments.overrides), return_hydra_config=with_hydra)


def _register(arguments: Arguments) -> None:
    """Register the root of the configuration and every chosen preset with Hydra."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    root, section = read_yaml(config_folder() / "config.yaml"), arguments.section
    if section not in GROUPS:
        root[section] = completed(SECTIONS[section], {})
    store.store("config", root)
    for group in GROUPS:
        store.store("default", {}, group, group)  # other sections are not read
    for group, files in arguments.chosen.items():
        if group in GROUPS and not files:
            files = {"default": config_folder() / group / "default.yaml"}
        for name, file in files.items():
            values = Presets().load(group, file)
            if group == section:
                values[_PRESET_TYPES] = _types(SECTIONS[group], values)
            store.store(name, values, group, "_global_" if group == "debug" else group)


@contextmanager
def _hydra_errors() -> Iterator[None]:
    """Turn Hydra's own errors into one-line messages."""
    from hydra.errors import HydraException

    try:
        yield
    except HydraException as problem:
        if "'hydra/launcher/joblib'" in str(problem):
            raise ConfigError(
                "hydra/launcher=joblib needs hydra-joblib-launcher, which is not installed: run pip install "
                "'quantum-diffusion[sweeps]', or leave it out to run one job after the other"
            ) from None
        raise ConfigError(" ".join(str(problem).split())) from None
    except OmegaConfBaseException as problem:
        raise ConfigError(f"cannot compose the configuration: {first_line(problem)}: check the hydra.* keys") from None
    except OSError as problem:
        if problem.filename is None:
            raise ConfigError(f"the current folder is unusable ({problem.strerror}): change to another one") from None
        raise ConfigError(
            f"Hydra cannot create its job folder {problem.filename!r} ({problem.strerror}): leave out hydra.run.dir "
            "and hydra.sweep.dir, or give a writable folder"
        ) from None


# ------------------------------------------------------------------------------------------------- sections


def section(
    composed: DictConfig, name: str, schema: type[SectionT], overrides: Sequence[str] | None = None
) -> SectionT:
    """Validate one section of a composed configuration.

    Args:
        composed: All sections.
        name: The section's name.
        schema: Its class.
        overrides: The command line's overrides; None takes those of the job that Hydra is running.

    Raises:
        ConfigError: A key or value is wrong; the message names it.
    """
    _complete(composed, name, _overrides_of_job() if overrides is None else overrides)
    try:
        values = OmegaConf.to_container(composed[name], resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"{error.full_key or name}: {first_line(error)}: give the value, or a key that exists"
        ) from None
    missing: list[str] = []
    config = validate(schema, _without_missing(values, name, missing), name)
    if missing:
        raise ConfigError(f"{missing[0]}: is required: give it on the command line as key=value")
    return config


def _overrides_of_job() -> list[str]:
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # ${...} in them stays
    assert isinstance(overrides, list)
    return overrides


def _complete(composed: DictConfig, name: str, overrides: Sequence[str]) -> None:
    """Drop a preset's parameters of each part whose type the command line changes, then add all defaults.

    Parameters of the new type are its defaults, overridden by the command line.
    """
    values: Any = OmegaConf.to_container(composed[name], resolve=False)
    types = values.pop(_PRESET_TYPES, {})
    given = keys_in([override for override in overrides if override.lstrip("+").startswith(f"{name}.")])
    for key, type_before in types.items():
        part, params = values.get(key), f"{name}.{key}.params"
        if isinstance(part, dict) and isinstance(part.get("params"), dict):
            schema = nested_sections(SECTIONS[name].model_fields[key].annotation)[0]
            assert issubclass(schema, Part)
            if schema.params_class({"type": type_before}) is not schema.params_class(part):
                part["params"] = {k: v for k, v in part["params"].items() if f"{params}.{k}" in given}
    OmegaConf.update(composed, name, completed(SECTIONS[name], values), merge=False, force_add=True)


def _types(schema: type[Section], values: Mapping[str, Any]) -> Values:
    """Return the type of every part in a section's values, by the part's key."""
    types = {}
    for key, field in schema.model_fields.items():
        if any(issubclass(nested, Part) for nested in nested_sections(field.annotation)):
            part = values.get(key)
            types[key] = part.get("type") if isinstance(part, dict) else None
    return types


def _without_missing(values: Any, key: str, missing: list[str]) -> Any:
    """Return values without missing required ones, whose keys are appended to `missing`."""
    if not isinstance(values, dict):
        return values
    missing += [f"{key}.{name}" for name, value in values.items() if value == MISSING]
    return {name: _without_missing(v, f"{key}.{name}", missing) for name, v in values.items() if v != MISSING}


def to_yaml(config: Section) -> str:
    """Return a configuration with all resolved values as YAML, which `validate` reads back."""
    return yaml_text(config.model_dump(mode="json"), allow_unicode=True)
