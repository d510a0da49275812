"""From a command line and the presets in `conf/` to typed configuration, through Hydra.

Hydra chooses and merges presets; the schema alone decides which keys and values are right, so that a wrong one
gives our one-line message and not a stack trace.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import quantum_diffusion
from quantum_diffusion.config.schema import (
    CompileConfig,
    DatasetConfig,
    EvaluationConfig,
    ExportConfig,
    InspectConfig,
    RunsConfig,
    SampleConfig,
    TrainingConfig,
)
from quantum_diffusion.config.validation import Section, validate
from quantum_diffusion.errors import ConfigError, first_line, unknown_name

SECTIONS: dict[str, type[Section]] = {
    "datasets": DatasetConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
    "sample": SampleConfig,
    "compile": CompileConfig,
    "inspect": InspectConfig,
    "export": ExportConfig,
    "runs": RunsConfig,
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


def dataset_preset(name: str) -> DatasetConfig:
    """Return a preset of `conf/datasets`, or the configuration in a YAML file of the same form.

    Args:
        name: Name of the preset ("quick_test_srv"), or path of a file that ends in ".yaml".

    Raises:
        ConfigError: There is no such preset or file, or it is wrong.
    """
    path = Path(name) if name.endswith(".yaml") else config_folder() / "datasets" / f"{name}.yaml"
    if not name.endswith(".yaml") and name not in preset_names("datasets"):
        raise ConfigError(unknown_name("datasets preset", name, preset_names("datasets")))
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as problem:
        raise ConfigError(f"cannot read {str(path)!r}: {problem.strerror}") from problem
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, ValueError) as problem:
        raise ConfigError(f"{str(path)!r} is no configuration of a data set: {first_line(problem)}") from None
    return validate(DatasetConfig, values, f"{name}: datasets")


def prepare_overrides(arguments: Sequence[str], command_section: str) -> list[str]:
    """Check preset names and let the schema, not Hydra, judge keys.

    Args:
        arguments: The command line without the program's name.
        command_section: The section the command reads ("training"); what is meant for others would have no effect.

    Returns:
        The arguments, each `section.key=value` marked `++` so that Hydra passes it on in any case. Hydra's options come
        last, because its parser does not see what stands behind them.

    Raises:
        ConfigError: A preset or section does not exist, or is not for this command.
    """
    groups = [group for group in (command_section, "debug") if preset_names(group)]
    prepared, options = [], []
    for position, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        name = key.lstrip("+~")
        first, dot, rest = name.partition(".")
        if argument.startswith("-"):
            options.append(argument)
        elif not equals and position and arguments[position - 1].startswith("--"):
            options.append(argument)  # the value of one of Hydra's options, as in --cfg job
        elif name == "hydra.mode":
            raise ConfigError(f"{argument!r} is not for this program: leave it out, and give -m for a sweep")
        elif first.partition("/")[0] == "hydra":
            prepared.append(argument)
        elif not equals and not argument.startswith("~"):
            raise ConfigError(f"cannot read {argument!r}: expected key=value, e.g. training=quick_test_srv")
        elif name in groups:
            names = preset_names(name)
            for choice in value.split(","):
                if choice.strip() not in names and not (name == "debug" and choice == "null"):
                    raise ConfigError(unknown_name(f"{name} preset", choice, names))
            prepared.append(f"{name}={value}")
        elif first == command_section and dot and rest:
            argument = _with_quoted_home(argument)
            _check_readable(argument)
            prepared.append(argument if argument[0] in "+~" else f"++{argument}")
        elif first in SECTIONS:
            raise ConfigError(f"{argument!r} has no effect here: this command reads {command_section}.KEY=VALUE")
        else:
            raise ConfigError(unknown_name("key", name, [*groups, f"{command_section}.KEY"]))
    return prepared + options


def _with_quoted_home(argument: str) -> str:
    """Quote values that begin with ~/, which Hydra's grammar does not know; what is quoted stays as it is."""
    if "'" in argument or '"' in argument:
        return argument
    return re.sub(r"(?<=[=,])((stream:)?~(/([^\s,(){}\[\]$]|\$\{[^}]*\})*)?)(?=,|$)", r"'\1'", argument)


def _check_readable(argument: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        raise ConfigError(
            f"cannot read {argument!r}: quote values with spaces or special characters, e.g. "
            "'training.general.dataset=\"./my data\"'"
        ) from None


def run_hydra(arguments: Sequence[str], task: Callable[[DictConfig], None]) -> None:
    """Let Hydra compose the configuration of every job and call `task` with it.

    Args:
        arguments: What `prepare_overrides` returned.
        task: Called once, or for every job of a sweep, then perhaps in another process; Hydra drops what it returns.

    Raises:
        ConfigError: Hydra refuses the arguments.
    """
    import hydra
    from hydra.errors import HydraException

    own = sys.argv
    sys.argv = [own[0], *arguments]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints its own errors and exits
    try:
        hydra.main(config_path=str(config_folder().resolve()), config_name="config", version_base="1.3")(task)()
    except HydraException as problem:
        if "'hydra/launcher/joblib'" in str(problem):
            raise ConfigError(
                "hydra/launcher=joblib needs hydra-joblib-launcher, which is not installed: run pip install "
                "'quantum-diffusion[sweeps]', or leave it out to run one job after the other"
            ) from None
        raise ConfigError(one_line(problem)) from None
    finally:
        sys.argv = own


def running_job() -> tuple[int, list[str]]:
    """Return the number of the sweep's job that Hydra is running, and what is set for it."""
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    return hydra_config.job.num, list(hydra_config.overrides.task)


def section(composed: DictConfig, name: str, schema: type[SectionT]) -> SectionT:
    """Validate one section of a composed configuration.

    Raises:
        ConfigError: A key or value is wrong; the message names it.
    """
    try:
        values = OmegaConf.to_container(composed[name], resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{name}: {first_line(error)}") from None
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
            composed = hydra_compose("config", overrides=prepare_overrides(overrides, name))
        except HydraException as error:
            raise ConfigError(one_line(error)) from None
    return section(composed, name, schema)


def one_line(error: Exception) -> str:
    """Return Hydra's message without its line breaks."""
    return " ".join(str(error).split())


def to_yaml(config: Section) -> str:
    """Write a configuration with all its resolved values as YAML; `validate` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
