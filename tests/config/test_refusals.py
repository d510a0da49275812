"""Wrong configuration is refused in one line that names the key and the mend, before anything is read or written."""

from __future__ import annotations

import copy
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from quantum_diffusion.cli import run_command
from quantum_diffusion.commands import COMMANDS
from quantum_diffusion.config import store
from quantum_diffusion.config.command_line import parse_arguments
from quantum_diffusion.config.schema import DatasetConfig, TrainingConfig
from quantum_diffusion.config.store import SECTIONS, compose
from quantum_diffusion.errors import ConfigError

SCRIPTS = Path(__file__).parents[2] / "scripts"
DATA = "training.general.dataset=./data"
ACCURACY = "training.training.best_metric=sampled_accuracy"
DDIM = "training.scheduler.type=ddim"
UNET = "training.model.type=unet"
MSE = "training.training.loss=mse"
EPSILON = "training.training.objective=epsilon"
ZERO_SNR = "training.scheduler.params.zero_terminal_snr=true"
CFG_PLUS_PLUS = "training.scheduler.params.guidance_mode=cfg++"

# command, arguments, what the message must contain
REFUSED_SETTINGS: list[tuple[str, list[str], list[str]]] = [
    # unknown names, each with the nearest valid one
    ("train", ["training=quik_test_srv"], ["training preset 'quik_test_srv'", "mean 'quick_test_srv'"]),
    ("train", ["training=null"], ["training preset 'null'", "default"]),
    ("train", ["training="], ["training preset ''"]),
    ("generate", ["debug=limits"], ["debug preset 'limits'", "mean 'limit'"]),
    ("train", ["trainig=default"], ["'trainig'", "mean 'training'"]),
    ("train", ["general.dataset=./data"], ["'general.dataset'", "training.KEY"]),
    ("generate", ["datasets.num_qubit=3"], ["datasets.num_qubit:", "mean 'num_qubits'"]),
    ("generate", ["+datasets.qubits=3"], ["datasets.qubits:", "mean 'num_qubits'"]),
    ("train", ["training.general.datset=x"], ["training.general.datset:", "mean 'dataset'"]),
    ("train", ["training.modle.type=unet"], ["training.modle:", "mean 'model'"]),
    ("train", [DATA, "training.model.params.widht=3"], ["training.model.params.widht:", "mean 'width'"]),
    ("train", [DATA, "training.scheduler.params.eta=1"], ["training.scheduler.params.eta:", "suffix_share"]),
    ("train", [DATA, "training.scheduler.type=maskd"], ["training.scheduler.type:", "mean 'masked'"]),
    ("train", [DATA, "training.scheduler.type=dpmsolver"], ["mean 'dpmsolver++'"]),
    ("train", [DATA, "training.scheduler.type=[ddim]"], ["training.scheduler.type:", "'ddim'"]),
    ("train", [DATA, "training.training.optimizer=adm"], ["training.training.optimizer:", "mean 'adam'"]),
    ("train", [DATA, "training.training.lr_scheduler=onecycle"], ["lr_scheduler:", "mean 'one_cycle'"]),
    ("train", [DATA, "training.training.objective=mu"], ["objective:", "valid: epsilon, v, x0"]),
    ("train", [DATA, "training.training.loss=l1"], ["training.training.loss:", "cross_entropy, mse"]),
    ("train", [DATA, "training.model.type=unett", "training.model.params.width=8"], ["model.type:", "mean 'unet'"]),
    ("train", [DATA, "training.text_encoder.type=t5"], ["training.text_encoder.type:", "valid: clip, prompt"]),
    (
        "train",
        [DATA, DDIM, "training.scheduler.params.beta_schedule=cosalpha"],
        ["training.scheduler.params.beta_schedule:", "mean 'cos_alpha'"],
    ),
    ("evaluate", ["evaluation.model_params.scheduler=ddmi"], ["evaluation.model_params.scheduler:", "valid:", "ddim"]),
    ("sample", ["sample.model_params.order=rand"], ["sample.model_params.order:", "mean 'random'"]),
    ("sample", ["sample.objective=deph"], ["sample.objective: unknown cost 'deph': did you mean 'depth'?"]),
    ("sample", ["sample.objective={gates:-1}"], ["sample.objective: the weight of gates is -1"]),
    ("sample", ["sample.max_seconds=0"], ["sample.max_seconds: expected more than 0"]),
    ("train", [DATA, "training.general.mlflow_uri=nonsense"], ["training.general.mlflow_uri: ", "'nonsense'", "http"]),
    ("train", [DATA, "training.general.mlflow_uri=foo://bar"], ["training.general.mlflow_uri: ", "'foo://bar'"]),
    (
        "train",
        [DATA, ACCURACY, "training.training.save=best", "training.training.sample_every=99"],
        ["training.sample_every=99 is more than training.num_epochs=10"],
    ),
    ("train", [DATA, ACCURACY, "training.training.sample_every=1"], ["sampled_accuracy has no effect", "save=best"]),
    # wrong types
    ("generate", ["datasets.num_qubits=three"], ["datasets.num_qubits: expected a whole number, given 'three'"]),
    ("generate", ["datasets.num_qubits=2.5"], ["datasets.num_qubits: expected a whole number, given 2.5"]),
    ("generate", ["datasets.num_qubits=true"], ["datasets.num_qubits: expected a whole number, given 'true'"]),
    ("generate", ["datasets.num_qubits=null"], ["datasets.num_qubits: expected a whole number, given null"]),
    ("generate", ["datasets.num_qubits="], ["datasets.num_qubits: expected a whole number, given ''"]),
    ("generate", ["datasets.num_samples=1e30"], ["datasets.num_samples: expected a whole number"]),
    ("generate", ["datasets.gate_set=h"], ["datasets.gate_set: expected a list, e.g. [a,b], given 'h'"]),
    ("generate", ["datasets.gate_set=[]"], ["datasets.gate_set: expected a list of 1 or more entries"]),
    ("generate", ["datasets.generation_gate_set=[]"], ["datasets.generation_gate_set: expected a list of 1"]),
    ("generate", ["datasets.coupling=[[0]]"], ["datasets.coupling.0: expected a list of 2 entries, given [0]"]),
    ("generate", ["datasets.coupling=[[0,1,2]]"], ["datasets.coupling.0: expected a list of at most 2 entries"]),
    ("generate", ["datasets.coupling=[[0,a]]"], ["datasets.coupling.0.1: expected a whole number, given 'a'"]),
    ("generate", ["datasets.output_path=3"], ["datasets.output_path: expected text", "quotes", "given 3"]),
    ("generate", ["datasets.output_path=null"], ["datasets.output_path: expected text", "given null"]),
    ("generate", ["datasets.output_path=''"], ["datasets.output_path: is empty: give a value"]),
    ("generate", ["datasets.overwrite=maybe"], ["datasets.overwrite: expected true or false, given 'maybe'"]),
    ("train", ["training.general=3"], ["training.general: expected nested keys", "given 3"]),
    ("train", [DATA, "training.model=unet"], ["training.model: expected nested keys", "given 'unet'"]),
    ("train", [DATA, "training.model.params=3"], ["training.model.params: expected nested keys", "given 3"]),
    ("train", [DATA, "training.training.learning_rate=fast"], ["learning_rate: expected a number, given 'fast'"]),
    ("train", [DATA, "training.training.precision=8"], ["training.training.precision:", "valid: 16, 32, auto, bf16"]),
    ("sample", ["sample.srv=122"], ["sample.srv: expected a list"]),
    # out of range
    ("generate", ["datasets.num_qubits=0"], ["datasets.num_qubits: expected 1 or more, given 0"]),
    ("generate", ["datasets.num_qubits=21"], ["datasets.num_qubits: expected 20 or less, given 21"]),
    ("generate", ["datasets.num_samples=-5"], ["datasets.num_samples: expected 1 or more, given -5"]),
    ("generate", ["datasets.seed=-1"], ["datasets.seed: expected 0 or more, given -1"]),
    ("generate", ["datasets.balance_max=0"], ["datasets.balance_max: expected 1 or more"]),
    ("generate", ["datasets.n_jobs=0"], ["datasets.n_jobs: 0 is not a number of workers", "-1 for every core"]),
    ("train", [DATA, "training.training.learning_rate=0"], ["learning_rate: expected more than 0"]),
    ("train", [DATA, "training.training.learning_rate=nan"], ["learning_rate: expected a finite number"]),
    ("train", [DATA, "training.training.ema_decay=1"], ["ema_decay: expected less than 1"]),
    ("train", [DATA, "training.training.validation_fraction=1.0"], ["validation_fraction: expected less than 1"]),
    ("train", [DATA, "training.scheduler.params.guidance_scale=1000"], ["guidance_scale: expected 100"]),
    ("sample", ["sample.srv=[1,2,3]"], ["sample.srv.2: a qubit has rank 1 (separable) or 2 (entangled), given 3"]),
    # missing
    ("evaluate", ["evaluation.dataset=x"], ["evaluation.model_dir: is required"]),
    ("sample", ["sample.model_dir=x"], ["sample.srv: is required"]),
    ("generate", ["datasets.num_qubits=???"], ["num_qubits"]),
    ("generate", ["datasets.num_qubits=${nothing.here}"], ["nothing.here"]),
    # impossible combinations
    ("generate", ["datasets.min_gates=9", "datasets.max_gates=8"], ["min_gates (9)", "max_gates (8)", "swap or raise"]),
    ("generate", ["datasets.generation_gate_set=[x]"], ["generation_gate_set has ['x']", "add them to gate_set"]),
    ("train", [DATA, UNET], ["model.type=unet", "scheduler.type=masked", "use model.type=transformer"]),
    ("train", [DATA, MSE], ["scheduler.type=masked", "training.loss=mse", "use x0 with cross_entropy"]),
    ("train", [DATA, EPSILON], ["scheduler.type=masked", "training.objective=epsilon"]),
    ("train", [DATA, "training.training.batching=bucketed"], ["batching=bucketed", "use max_padded"]),
    ("train", [DATA, DDIM, EPSILON], ["loss=cross_entropy", "objective=x0", "given epsilon"]),
    ("train", [DATA, DDIM, "training.training.objective=v"], ["loss=cross_entropy", "given v"]),
    ("train", [DATA, DDIM, MSE, EPSILON, ZERO_SNR], ["zero_terminal_snr=true", "use objective v or x0"]),
    (
        "train",
        [DATA, DDIM, UNET, "training.training.prefix_head_weight=0.5"],
        ["prefix_head_weight=0.5", "set it to 0"],
    ),
    ("train", [DATA, "training.model.params.width=97"], ["training.model.params: width 97", "num_heads 4"]),
    ("train", [DATA, "training.text_encoder.params.num_heads=3"], ["training.text_encoder.params:", "num_heads 3"]),
    ("train", [DATA, DDIM, UNET, "training.model.params.num_heads=[8,8,3]"], ["model_features 256", "3 heads"]),
    (
        "train",
        [DATA, DDIM, UNET, "training.model.params.num_heads=[8,8]"],
        ["one entry per level", "given 3, 2, 3 and 3"],
    ),
    ("train", [DATA, DDIM, UNET, "training.model.params.model_features=[100,128,256]"], ["multiple of 32"]),
    ("train", [DATA, DDIM, UNET, "training.model.params.transformer_depths=[0,0,0]"], ["only these see the prompt"]),
    ("train", [DATA, DDIM, UNET, "training.model.params.t_emb_size=33"], ["t_emb_size: expected a multiple of 2"]),
    ("train", [DATA, DDIM, UNET, "training.model.params.clr_dim=1"], ["clr_dim: expected 2 or more"]),
    ("train", [DATA, "training.model.params={width: 9, num_heads: 3}"], ["width 9 must be even"]),
    ("train", [DATA, DDIM, "training.scheduler.params.num_train_timesteps=9000"], ["expected 5000 or less"]),
    ("train", [DATA, DDIM, "training.scheduler.params.num_train_timesteps=10"], ["sample_steps=20", "10 noise levels"]),
    ("train", [DATA, DDIM, "training.scheduler.params.beta_end=1"], ["beta_end: expected less than 1"]),
    ("train", [DATA, "training.scheduler.type=unipc", ZERO_SNR], ["type=unipc cannot start at zero", "ddim or ddpm"]),
    ("train", [DATA, DDIM, "training.scheduler.params.guidance_mode=rescaled"], ["guidance_mode=rescaled", "plain"]),
    (
        "train",
        [DATA, MSE, "training.scheduler.type=ddpm", CFG_PLUS_PLUS],
        ["cfg++ is for scheduler.type=ddim", "plain"],
    ),
    # not readable, or without effect
    ("generate", ["datasets"], ["cannot read 'datasets'", "key=value"]),
    ("generate", ["datasets.num_qubits 3"], ["cannot read", "key=value"]),
    ("generate", ["datasets.output_path='a b"], ["cannot read", "quote values"]),
    ("generate", ["datasets.gate_set=[h,cx"], ["cannot read", "quote values"]),
    ("generate", ["=3"], ["unknown key ''"]),
    ("generate", ["datasets.num_qubits=3,4"], ["datasets.num_qubits=3,4", "several values", "--multirun"]),
    ("generate", ["hydra.nothing=3"], ["hydra.nothing"]),
    # Hydra's own options and grammar
    ("generate", ["--config-name=nothing"], ["--config-name", "choose a preset"]),
    ("generate", ["-cn", "nothing"], ["--config-name is not supported"]),
    ("generate", ["--config-path", "conf"], ["--config-path", "--config-dir=FOLDER"]),
    (
        "generate",
        ["-sc", "install=bash"],
        ["--shell-completion is not supported: use `quantum-diffusion completion SHELL`"],
    ),
    ("generate", ["--experimental-rerun=job.pickle"], ["--experimental-rerun", "can run code"]),
    ("generate", ["--mutlirun"], ["unknown option '--mutlirun'", "mean '--multirun'"]),
    ("generate", ["--cfg", "jobs"], ["--cfg", "'jobs'", "job"]),
    ("generate", ["--cfg"], ["--cfg", "expected one argument"]),
    ("generate", ["--config-dir=./none", "datasets=default"], ["--config-dir='none' is not a folder"]),
    ("generate", ["~datasets"], ["'~datasets' would remove a whole section"]),
    ("train", ["~training.training"], ["'~training.training' would remove a whole section"]),
    ("train", ["~training.nothing.here"], ["training.nothing.here"]),
    ("train", ["training=quick_test_srv,default"], ["chooses several presets: add -m"]),
    ("train", ["training=choice(quick_test_srv,default)"], ["chooses several presets: add -m"]),
    ("train", ["-m", "training=glob(none*)"], ["matches no preset", "quick_test_srv"]),
    ("train", ["-m", "training=choice(quick_test_srv,defualt)"], ["training preset 'defualt'", "mean 'default'"]),
    ("train", ["-m", "training=range(1,3)"], ["training preset 'range(1,3)'"]),
    ("train", ["training=none.yaml"], ["training=none.yaml: no such file"]),
    ("train", ["training.training.batch_size=range(1,3)"], ["add -m"]),
    # names of the field and of other libraries
    ("train", [DATA, "training.training.optimizer=SGD"], ["unknown value 'SGD' (valid: adam, adamw, muon)"]),
    ("train", [DATA, "training.training.device=cpu"], ["mean 'training.general.device'"]),
    ("sample", ["sample.sample_steps=5"], ["mean 'sample.model_params.sample_steps'"]),
    ("generate", ["training.training.batch_size=3"], ["has no effect on this command", "datasets.KEY"]),
    ("train", [DATA, "evaluation=default"], ["has no effect on this command", "training.KEY"]),
    ("sample", ["sample=small"], ["has no effect on this command", "sample.KEY"]),
]
"""Refused where settings are composed, for a command and in Python alike."""

REFUSED_COMMANDS = [
    ("generate", ["datasets.gate_set=[h,cxx]"], ["gate 'cxx'", "mean 'cx'"]),
    ("train", [], ["train needs training.general.dataset: e.g. quantum-diffusion train training.general.dataset=./"]),
    ("compile", [], ["compile needs compile.target: e.g. quantum-diffusion compile toffoli"]),
    ("generate", ["datasets.gate_set=[h,ccx]", "datasets.num_qubits=2"], ["'ccx'", "3 qubits", "num_qubits"]),
    ("generate", ["datasets.gate_set=[h,h]"], ["repeats ['h']"]),
    ("generate", ["datasets.coupling=[[0,9]]"], ["coupling edge [0, 9]"]),
    ("generate", ["datasets.coupling=[]"], ["does not allow gate 'cx' on any qubits"]),
    ("generate", ["--cfg=job", "-p", "datasets.nothing"], ["--package=datasets.nothing", "'nothing'"]),
    ("generate", ["--cfg=job", "--resolve", "datasets.seed=${nothing.here}"], ["nothing.here"]),
    ("train", [DATA, "hydra.run.dir=/proc/x"], ["Hydra cannot create its job folder '/proc/x'"]),
    ("train", [DATA, "hydra.run.dir=${oc.env:QD_NONE}"], ["QD_NONE", "check the hydra.* keys"]),
    ("train", [DATA, "training.general.device=cudda"], ["device 'cudda'", "mean 'cuda'"]),
    ("train", [DATA, "training.general.device=cuda:99"], ["device is 'cuda:99'", "use 'auto' or 'cpu'"]),
    # and some of the above: a preset, a key, a type, what is missing, a combination, Hydra's keys and options
    ("train", ["training=quik_test_srv"], ["training preset 'quik_test_srv'", "mean 'quick_test_srv'"]),
    ("train", ["training.modle.type=unet"], ["training.modle:", "mean 'model'"]),
    ("train", [DATA, "training.model.params.widht=3"], ["training.model.params.widht:", "mean 'width'"]),
    ("generate", ["datasets.num_qubits=2.5"], ["datasets.num_qubits: expected a whole number, given 2.5"]),
    ("evaluate", ["evaluation.dataset=x"], ["evaluation.model_dir: is required"]),
    ("sample", ["sample.model_dir=x"], ["sample.srv: is required"]),
    ("generate", ["datasets.num_qubits=${nothing.here}"], ["nothing.here"]),
    ("train", [DATA, UNET], ["model.type=unet", "scheduler.type=masked", "use model.type=transformer"]),
    ("train", [DATA, DDIM, UNET, "training.model.params.num_heads=[8,8,3]"], ["model_features 256", "3 heads"]),
    ("generate", ["datasets.output_path='a b"], ["cannot read", "quote values"]),
    ("generate", ["hydra.nothing=3"], ["hydra.nothing"]),
    ("generate", ["--mutlirun"], ["unknown option '--mutlirun'", "mean '--multirun'"]),
    ("train", ["-m", "training=choice(quick_test_srv,defualt)"], ["training preset 'defualt'", "mean 'default'"]),
]


@functools.cache
def default_preset(section: str) -> DictConfig:
    return store._compose(parse_arguments([], section))


def compose_quickly(section: str, arguments: list[str]) -> None:
    """Do what `compose` does; arguments that only set values are laid over the default preset, composed once."""
    overrides = parse_arguments(arguments, section).overrides
    settings = OverridesParser.create().parse_overrides(list(overrides))
    if all(setting.is_force_add() and "${" not in str(setting.value()) for setting in settings):
        composed = copy.deepcopy(default_preset(section))
        for setting in settings:
            OmegaConf.update(composed, setting.key_or_group, setting.value(), force_add=True)
        store.section(composed, section, SECTIONS[section], overrides)
    else:
        compose(section, SECTIONS[section], arguments)


def check_message(message: str, contents: list[str]) -> None:
    assert "\n" not in message
    for content in contents:
        assert content in message
    for phrase in ("input should", "pydantic", "function-after", "Traceback", "HYDRA_FULL_ERROR", "UNetParams"):
        assert phrase not in message
    assert len(message) < 390


@pytest.mark.parametrize(("command", "arguments", "contents"), REFUSED_SETTINGS, ids=lambda value: None)
def test_wrong_configuration_is_refused_in_one_line(
    command: str, arguments: list[str], contents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    section = COMMANDS[command].section
    with pytest.raises(ConfigError) as refused:
        compose_quickly(section, arguments)
    check_message(str(refused.value), contents)
    assert not files_below(tmp_path)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("command", "arguments", "contents"), REFUSED_COMMANDS, ids=lambda value: None)
def test_a_command_with_wrong_configuration_ends_with_one_line(
    command: str,
    arguments: list[str],
    contents: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert run_command(command, arguments) == 2
    written = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", written), written
    check_message(written.removeprefix("error: ").removesuffix("\n"), contents)
    assert not files_below(tmp_path)


@pytest.mark.parametrize(
    ("script", "arguments", "contents"),
    [
        ("generate_dataset", ["datasets=quick_tst"], "mean 'quick_test_srv'"),
        ("train_model", ["training=quick_test_srv"], "training.general.dataset: is required"),
        ("evaluate_model", ["evaluation.num_samples=0"], "evaluation.num_samples: expected 1 or more"),
    ],
)
def test_the_scripts_refuse_in_one_line(script: str, arguments: list[str], contents: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), "hydra.run.dir=.", "hydra.output_subdir=null", *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    assert contents in result.stderr
    assert not result.stdout.strip()
    assert not files_below(tmp_path)


def test_nothing_is_written_beside_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's own folders (outputs, .hydra, logs) do not appear."""
    monkeypatch.chdir(tmp_path)
    path = os.path.join("data", "a")
    assert run_command("generate", ["datasets.num_samples=20", f"datasets.output_path={path}"]) == 0
    assert {entry.split(os.sep)[0] for entry in files_below(tmp_path)} == {"data"}


def test_hydra_only_shows_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command("generate", ["--cfg", "job"]) == 0
    assert not files_below(tmp_path)


def test_a_value_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QD_TEST_SAMPLES", "12")
    config = compose("datasets", DatasetConfig, ["datasets.num_samples=${oc.env:QD_TEST_SAMPLES}"])
    assert config.num_samples == 12


def test_python_users_get_the_same_messages() -> None:
    with pytest.raises(ConfigError, match=r"^training\.general\.dataset: is required"):
        compose("training", TrainingConfig)
    with pytest.raises(ConfigError, match=r"^[^\n]*--multirun[^\n]*$"):
        compose("datasets", DatasetConfig, ["datasets.num_qubits=3,4"])


def test_every_command_reads_a_section_of_the_schema() -> None:
    assert {entry.section for entry in COMMANDS.values()} == set(SECTIONS)


@pytest.mark.parametrize("arguments", [["trian"], ["--verion"]])
def test_an_unknown_command_is_refused(arguments: list[str]) -> None:
    code = "from quantum_diffusion.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: unknown command {arguments[0]!r}")
    assert result.stderr.count("\n") == 1
