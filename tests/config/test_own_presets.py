"""Presets of users: found by name and by file, built on others, read safely; Hydra's own ways to choose and show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from quantum_diffusion.cli import run_command
from quantum_diffusion.config.command_line import parse_arguments, presets_of
from quantum_diffusion.config.presets import Presets, read_yaml
from quantum_diffusion.config.schema import (
    GaussianParams,
    MaskedParams,
    PolicyParams,
    SamplingConfig,
    TrainingConfig,
    TransformerParams,
    UNetParams,
)
from quantum_diffusion.config.store import compose, dataset_preset, to_yaml
from quantum_diffusion.config.validation import validate
from quantum_diffusion.errors import ConfigError

DATA = "training.general.dataset=./data"


def training(*overrides: str) -> TrainingConfig:
    return compose("training", TrainingConfig, [DATA, *overrides])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of presets laid out like ours; it is the current folder, too."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "mine.yaml").write_text(
        "# @package training\ndefaults: [quick_test_srv, _self_]\ntraining: {max_steps: 3}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("option", [["--config-dir=."], ["--config-dir", "."], ["-cd", "."]])
def test_presets_of_a_users_folder_are_chosen_by_name_and_built_on_ours(folder: Path, option: list[str]) -> None:
    config = training(*option, "training=mine")
    expected = training("training=quick_test_srv", "training.training.max_steps=3")
    assert config == expected
    assert "mine" in presets_of([*option, "--help"]).names("training")


@pytest.mark.parametrize(
    "name",
    ["mine.yaml", "./mine.yaml", "sub dir/mine.yaml", "ds[12]/a=b.yaml", "héé.yml", "nan.yaml", "1e5.yaml", "null.yml"],
)
def test_a_file_of_any_name_is_a_preset(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text((folder / "training" / "mine.yaml").read_text())
    assert training(f"training='{name}'").training.max_steps == 3


def test_a_file_may_be_built_on_files_beside_it_and_on_a_chain_of_presets(folder: Path) -> None:
    (folder / "a.yaml").write_text("defaults: [training/mine.yaml]\ntraining: {batch_size: 7}\n")
    (folder / "b.yaml").write_text("training: {num_epochs: 9, batch_size: 8}\ndefaults: [_self_, a]\n")
    loop = training("training=b.yaml").training
    assert (loop.num_epochs, loop.batch_size, loop.max_steps) == (2, 7, 3), "what comes later in defaults is on top"


def test_a_saved_configuration_makes_itself_again(folder: Path) -> None:
    for config in (training("training=paper_srv_stage_2"), training("training=quick_test_unet"), training()):
        (folder / "training_config.yaml").write_text(to_yaml(config))
        assert compose("training", TrainingConfig, ["training=training_config.yaml"]) == config


def test_what_cfg_shows_is_whole_and_can_be_given_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [DATA, "training=quick_test_unet", "training.general.output_path=o_${training.training.learning_rate}"]
    assert run_command("train", ["--cfg", "job", "--resolve", *arguments]) == 0
    shown = capsys.readouterr().out
    config = training(*arguments[1:])
    assert validate(TrainingConfig, yaml.safe_load(shown)["training"], "training") == config
    (folder / "again.yaml").write_text(shown)
    assert compose("training", TrainingConfig, ["training=again.yaml"]) == config
    assert run_command("train", ["-c", "job", "-p", "training.general.output_path", *arguments]) == 0
    assert "o_${training.training.learning_rate}" in capsys.readouterr().out


def test_what_has_to_be_given_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("sample", ["--cfg", "job", "--resolve"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["sample"]
    assert shown["srv"] == "???"
    assert shown["model_dir"] is None
    assert shown["model_params"] == SamplingConfig().model_dump(mode="json")


def test_hydras_own_part_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("sample", ["--cfg", "hydra", "-p", "hydra.output_subdir"]) == 0
    assert capsys.readouterr().out == "# @package hydra.output_subdir\nnull\n"


@pytest.mark.parametrize("key", ["${training.training.learning_rate}", "${training.model.params.feed_forward}"])
def test_interpolation_knows_defaults(key: str) -> None:
    assert training(f"training.general.output_path=o_{key}").general.output_path in ("o_0.003", "o_4")


def test_a_deleted_key_has_its_default(folder: Path) -> None:
    assert training("training=quick_test_srv", "~training.training.num_epochs").training.num_epochs == 10
    assert training("training=quick_test_srv", "debug=limit", "~debug") == training("training=quick_test_srv")


@pytest.mark.parametrize("choice", ["glob(quick_test_u*)", "choice(quick_test_unet,quick_test_unitary)"])
def test_presets_are_swept_in_all_of_hydras_ways(choice: str) -> None:
    parsed = parse_arguments(["-m", f"training={choice}"], "training")
    assert parsed.overrides == ("training=quick_test_unet,quick_test_unitary",)


def test_files_of_one_name_in_a_sweep_stay_apart(folder: Path) -> None:
    (folder / "mine.yaml").write_text("training: {max_steps: 1}\n")
    parsed = parse_arguments(["-m", "training=mine.yaml,training/mine.yaml"], "training")
    assert parsed.overrides == ("training=mine,mine_2",)
    assert parsed.chosen["training"] == {"mine": Path("mine.yaml"), "mine_2": Path("training/mine.yaml")}


# --------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("section", "given", "prepared"),
    [
        ("sample", "sample.srv=1,2,2", "++sample.srv=[1,2,2]"),
        ("datasets", "datasets.gate_set=h,cx", "++datasets.gate_set=[h,cx]"),
        ("datasets", "datasets.coupling=[0,1],[1,2]", "++datasets.coupling=[[0,1],[1,2]]"),
        ("training", "training.model.params.model_features=64,128", "++training.model.params.model_features=[64,128]"),
        ("compile", "+compile.edit.keep=0,1", "++compile.edit.keep=[0,1]"),
    ],
)
def test_a_list_needs_no_brackets_outside_of_a_sweep(section: str, given: str, prepared: str) -> None:
    assert parse_arguments([given], section).overrides == (prepared,)
    assert parse_arguments(["-m", given], section).overrides[0].endswith(given.lstrip("+"))


@pytest.mark.parametrize(
    ("overrides", "model", "process"),
    [
        (
            [],
            PolicyParams(width=192, depth=2),
            MaskedParams(suffix_share=1, order="left_to_right", guidance_scale=2, guidance_growth=20),
        ),
        (["training.scheduler.type=ddim", "training.model.type=transformer"], TransformerParams(), GaussianParams()),
        (
            ["training.scheduler.type=unipc", "training.scheduler.params.sample_steps=7", "training.model.type=unet"],
            UNetParams(),
            GaussianParams(sample_steps=7),
        ),
        (
            ["training.model={type: unet, params: {clr_dim: 8}}", "training.scheduler.type=ddim"],
            UNetParams(clr_dim=8),
            GaussianParams(),
        ),
    ],
)
def test_another_type_of_a_part_drops_the_parameters_of_the_presets(
    overrides: list[str], model: Any, process: Any
) -> None:
    shown = ["training.prefix_encoder.type=none"] if overrides else []
    config = training("training=quick_test_srv", *shown, *overrides)
    assert config.model.params == model
    assert config.scheduler.params == process


def test_types_that_share_their_parameters_keep_them() -> None:
    config = training("training=quick_test_unet", "training.scheduler.type=ddpm")
    assert config.scheduler.params.guidance_scale == 5


def test_a_preset_may_change_the_type_of_the_one_it_is_built_on(folder: Path) -> None:
    (folder / "unet.yaml").write_text(
        "defaults: [quick_test_srv]\nmodel: {type: unet}\nscheduler: {type: ddim, params: {sample_steps: 9}}\n"
        "prefix_encoder: {type: none}\n"
    )
    config = training("training=unet.yaml")
    assert config.model.params == UNetParams()
    assert config.scheduler.params == GaussianParams(sample_steps=9)


def test_parameters_of_another_type_on_the_command_line_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.model\.params\.t_emb_size: unknown key"):
        training("training=quick_test_srv", "training.model.params.t_emb_size=8")
    with pytest.raises(ConfigError, match=r"training\.model\.params\.width: unknown key"):
        training("training=quick_test_srv", "training.model.type=unet", "training.model.params.width=8")


# ---------------------------------------------------------------------------------------------------- files

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)

BROKEN: dict[str, tuple[bytes, str]] = {
    "no UTF-8": (b"a: 1\nb: \xe9\n", r"line 2: not valid UTF-8"),
    "broken": (b"a: 1\nb: [1, 2\n", r"line 3: expected ',' or ']'"),
    "duplicate key": (b"training: {batch_size: 1}\ntraining: {batch_size: 2}\n", r"line 2: found duplicate key"),
    "tab": (b"training:\n\tbatch_size: 1\n", r"line 2: found character '\\t'"),
    "alias bomb": (BOMB.encode(), r"more than 100,000 values"),
    "alias of itself": (b"a: &a [*a]\n", r"more than 100,000 values"),
    "huge number": (b"training: {batch_size: " + b"9" * 5000 + b"}\n", r"expected keys and values"),
    "huge file": (b"# " + b"x" * 2**20, r"larger than 1 MiB"),
    "nested": (b"a: " + b"[" * 450 + b"]" * 450, r"nested too deeply"),
    "NUL": (b"a: \x00\n", r"#x0000"),
    "list": (b"- 1\n", r"expected keys and values"),
    "one value": (b"3\n", r"expected keys and values"),
    "code": (b"a: !!python/object/apply:os.system ['true']\n", r"could not determine a constructor"),
    "dotted key 2": (b"a.b.c: 5\n", r"write 'a.b.c' as 'b.c' nested under 'a'"),
    "dotted key": (b"training.max_steps: 5\n", r"write 'training.max_steps' as 'max_steps' nested under 'training'"),
    "odd defaults": (b"defaults: {training: x}\n", r"`defaults` is \{'training': 'x'\}, expected a list"),
    "unknown default": (b"defaults: [quick_tst_srv]\n", r"`defaults`: unknown \w+ preset 'quick_tst_srv'"),
    "of itself": (b"defaults: [broken.yaml]\n", r"builds on itself"),
    "package": (b"# @package model.params\nwidth: 3\n", r"begins with `@package model.params`"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_preset_is_told_in_one_line_wherever_it_lies(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BROKEN[kind]
    for path in (folder / "broken.yaml", folder / "training" / "broken.yaml"):
        path.write_bytes(content)
    for choice in (["training=broken.yaml"], ["--config-dir=.", "training=broken"]):
        with pytest.raises(ConfigError, match=f"broken.yaml'.*{message}") as raised:
            training(*choice)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=f"broken.yaml.*{message}"):
        dataset_preset(str(folder / "broken.yaml"))
    assert run_command("train", [DATA, "training=broken.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_value_in_place_of_keys_is_refused_whatever_lies_above_it(folder: Path) -> None:
    (folder / "flat.yaml").write_text("training: 5\n")
    with pytest.raises(ConfigError, match=r"flat.yaml': training: expected nested keys, given 5"):
        training("training=flat.yaml", "debug=limit")


def test_unreadable_and_missing_presets_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"cannot read '.*none.yaml'.*No such file"):
        read_yaml(folder / "none.yaml")
    with pytest.raises(ConfigError, match=r"Not a directory|is not a folder"):
        Presets(folder / "training" / "mine.yaml").names("training")
    (folder / "training" / "default.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"has the name of a built-in preset, training=default: rename the file"):
        Presets(folder).names("training")


def test_a_mark_of_byte_order_and_an_empty_file_are_fine(folder: Path) -> None:
    (folder / "bom.yaml").write_bytes(b"\xef\xbb\xbftraining: {max_steps: 4}\n")
    (folder / "empty.yaml").write_bytes(b"")
    assert training("training=bom.yaml").training.max_steps == 4
    assert training("training=empty.yaml").training == training().training
