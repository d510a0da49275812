"""From a command line and the presets in `conf/` to typed configuration, through Hydra.

Hydra chooses and merges presets; the schema alone decides which keys and values are right, so that a wrong one
gives our one-line message and not a stack trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import quantum_diffusion
from quantum_diffusion.config.schema import (
    DatasetConfig,
    EvaluationConfig,
    SampleConfig,
    Section,
    TrainingConfig,
    validate,
)
from quantum_diffusion.errors import ConfigError, unknown_name

SECTIONS: dict[str, type[Section]] = {
    "datasets": DatasetConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
    "sample": SampleConfig,
}

SectionT = TypeVar("SectionT", bound=Section)


def config_folder() -> Path:
    """Return the folder of presets: the installed package's own, or the repository's in an editable install."""
    package = Path(quantum_diffusion.__file__).parent
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"the presets (conf/config.yaml) are missing beside {package}: install the package again")


def preset_names(group: str) -> list[str]:
    """Return the presets of a group ("datasets", "training", "evaluation", "debug"), sorted."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def prepare_overrides(arguments: Sequence[str]) -> list[str]:
    """Check preset names and let the schema, not Hydra, judge keys.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The arguments, each `section.key=value` marked `++` so that Hydra passes it on in any case.

    Raises:
        ConfigError: A preset or section does not exist.
    """
    groups = [folder.name for folder in config_folder().iterdir() if folder.is_dir()]
    prepared = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        name = key.lstrip("+~")
        if argument.startswith("-") or name.split(".")[0] == "hydra":
            prepared.append(argument)
            continue
        if not equals and not argument.startswith("~"):
            raise ConfigError(f"cannot read {argument!r}: expected key=value, e.g. training=quick_test_srv")
        if name in groups:
            for choice in value.split(","):
                if choice.strip() not in [*preset_names(name), "null"]:
                    raise ConfigError(unknown_name(f"{name} preset", choice, preset_names(name)))
            prepared.append(f"{name}={value}")
            continue
        if name.split(".")[0] not in SECTIONS:
            raise ConfigError(unknown_name("key", name, [*groups, *(f"{section}.…" for section in SECTIONS)]))
        prepared.append(argument if argument[0] in "+~" else f"++{argument}")
    return prepared


def section(composed: DictConfig, name: str, schema: type[SectionT]) -> SectionT:
    """Validate one section of a composed configuration.

    Raises:
        ConfigError: A key or value is wrong; the message names it.
    """
    try:
        values = OmegaConf.to_container(composed[name], resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from None
    return validate(schema, values, name)


def compose(name: str, schema: type[SectionT], overrides: Sequence[str] = ()) -> SectionT:
    """Compose presets and overrides without a command line, for Python users and tests.

    Example:
        >>> compose("datasets", DatasetConfig, ["datasets=quick_test_srv"]).num_qubits
        3
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        try:
            composed = hydra_compose("config", overrides=prepare_overrides(overrides))
        except HydraException as error:
            raise ConfigError(" ".join(str(error).split())) from None
    return section(composed, name, schema)


def to_yaml(config: Section) -> str:
    """Write a configuration with all its resolved values as YAML; `validate` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
