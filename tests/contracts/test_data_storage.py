"""A data set folder is read back exactly as it was written, or refused: never other data, never other exceptions.

Loading writes nothing and runs nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from quantum_diffusion.circuits.gates import GATES, GatePool
from quantum_diffusion.data import storage
from quantum_diffusion.data.container import CircuitDataset
from quantum_diffusion.data.dataset import DatasetLoader
from quantum_diffusion.data.storage import (
    check_replaceable,
    is_dataset_folder,
    load_dataset_folder,
    read_description,
    save_blocks,
    save_dataset,
)
from quantum_diffusion.errors import DatasetFormatError
from tests.conftest import with_entry

DS = "dataset/ds"
FILES = ["config.yaml", f"{DS}/prompts.json", *(f"{DS}/{key}.safetensors" for key in "xyz")]


def random_dataset(
    seed: int = 0,
    num_circuits: int = 5,
    num_qubits: int = 2,
    max_gates: int = 4,
    names: tuple[str, ...] = ("h", "cx"),
    with_unitaries: bool = False,
) -> CircuitDataset:
    """Arrays of the right kind; tokens are within the vocabulary but need not be circuits."""
    rng = np.random.default_rng(seed)
    pool, side = GatePool(names), 2**num_qubits
    prompts = tuple(sorted({f"Generate SRV: {number}" for number in rng.integers(0, 9, 4)}))
    shape = (num_circuits, num_qubits, max_gates)
    sizes = np.stack([rng.integers(1, n + 1, num_circuits) for n in (num_qubits, max_gates)], axis=1)
    return CircuitDataset(
        tokens=rng.integers(-pool.padding_token, pool.padding_token + 1, shape).astype(np.int8),
        prompt_index=rng.integers(0, len(prompts), num_circuits).astype(np.int32),
        prompts=prompts,
        sizes=sizes.astype(np.int16),
        gate_pool=pool,
        condition_type="UNITARY" if with_unitaries else "SRV",
        targets=rng.random((num_circuits, 2, side, side), dtype=np.float32) if with_unitaries else None,
        angles=rng.random((num_circuits, max_gates, pool.num_angles)) if pool.num_angles else None,
    )


def assert_equal(first: CircuitDataset, second: CircuitDataset) -> None:
    assert first.fingerprint == second.fingerprint
    for key in ("tokens", "prompt_index", "sizes", "targets", "angles"):
        ours, theirs = getattr(first, key), getattr(second, key)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
    assert (first.prompts, first.gate_pool) == (second.prompts, second.gate_pool)
    assert first.condition_type == second.condition_type


def seal(folder: Path) -> None:
    """Make the checksums right again after a change, as an attacker or a foreign program could."""
    text = (folder / "config.yaml").read_text()
    head = text.partition("\nsha256:\n")[0] + "\n"
    checksums = {"config.yaml": hashlib.sha256(head.encode()).hexdigest()}
    for name in yaml.safe_load(text)["sha256"]:
        if name != "config.yaml" and (folder / name).is_file():
            checksums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.yaml").write_text(head + yaml.safe_dump({"sha256": checksums}, sort_keys=False))


def describe_as(folder: Path, **changes: Any) -> None:
    """Change keys of the description; the checksum is right afterwards."""
    file = folder / "config.yaml"
    description = yaml.safe_load(file.read_text()) | changes
    checksums = description.pop("sha256")
    file.write_text(yaml.safe_dump(description, sort_keys=False) + yaml.safe_dump({"sha256": checksums}))
    seal(folder)


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Names, times and contents below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_dataset(random_dataset(), tmp_path / "data", {"seed": 3})
    return tmp_path / "data"


# ------------------------------------------------------------------------------------------- round trip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    num_circuits=st.integers(1, 9),
    num_qubits=st.integers(1, 4),
    max_gates=st.integers(1, 6),
    names=st.lists(st.sampled_from(sorted(GATES)), min_size=1, max_size=14, unique=True),
    with_unitaries=st.booleans(),
)
def test_round_trip(
    tmp_path: Path,
    seed: int,
    num_circuits: int,
    num_qubits: int,
    max_gates: int,
    names: list[str],
    with_unitaries: bool,
) -> None:
    dataset = random_dataset(seed, num_circuits, num_qubits, max_gates, tuple(names), with_unitaries)
    save_dataset(dataset, tmp_path / "data", {"seed": seed})
    assert_equal(load_dataset_folder(tmp_path / "data"), dataset)
    assert_equal(DatasetLoader().load_dataset(tmp_path / "data"), dataset)


def test_settings_survive(tmp_path: Path) -> None:
    values = {"seed": 2**70, "text": "a: 'b'\nsha256:\n", "none": None, "list": [[0, 1]], "float": 1e-7, "é": True}
    save_dataset(random_dataset(), tmp_path / "data", values)
    assert read_description(tmp_path / "data")["settings"] == values
    assert_equal(load_dataset_folder(tmp_path / "data"), random_dataset())


def test_prompts_may_hold_any_text(tmp_path: Path) -> None:
    prompts = tuple(sorted(["", 'quotes " and \\', "two\nlines", "ψ 量子 🙂"]))
    dataset = random_dataset(num_circuits=4)
    dataset = CircuitDataset(dataset.tokens, np.arange(4, dtype=np.int32), prompts, dataset.sizes, dataset.gate_pool)
    save_dataset(dataset, tmp_path / "data", {})
    assert load_dataset_folder(tmp_path / "data").prompts == prompts


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_dataset(random_dataset(with_unitaries=True), tmp_path / name, {"seed": 0})
    contents = [{key: value[2] for key, value in state_of(tmp_path / name).items()} for name in "ab"]
    assert contents[0] == contents[1]


def test_the_folder_is_what_the_documentation_says(folder: Path) -> None:
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(
        ["README.md", *FILES]
    )
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.rglob("*") if path.is_file())
    description = yaml.safe_load((folder / "config.yaml").read_text())
    assert description["format_version"] == 1
    assert description["gate_pool"] == ["h", "cx"]
    assert set(description["sha256"]) == set(FILES)
    assert json.loads((folder / DS / "prompts.json").read_text()) == list(random_dataset().prompts)


def test_loading_never_writes(folder: Path) -> None:
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state_of(folder.parent)
    try:
        DatasetLoader().load_dataset(folder)
        DatasetLoader().load_dataset(folder.parent)
        assert state_of(folder.parent) == before
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


# ---------------------------------------------------------------------------------------------- damage


def refused(path: Path, *contents: str) -> None:
    """The loader refuses with one line that holds the contents, and writes nothing."""
    before = state_of(path) if os.path.isdir(path) else None
    with pytest.raises(DatasetFormatError) as caught:
        DatasetLoader().load_dataset(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for content in contents:
        assert content in message, message
    if before is not None:
        assert state_of(path) == before


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", "none' does not exist: make one with `quantum-diffusion generate`")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "file' is not a folder: make one with")
    refused(Path("/dev/null"), "'/dev/null' is not a folder: make one with")
    refused(tmp_path / "file" / "deeper", "does not exist")
    refused(tmp_path / ("a" * 300), "the name is too long")


def test_an_empty_or_unrelated_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is empty: give a data set (config.yaml and dataset/ds) or a folder of data sets")
    (tmp_path / "notes.txt").write_text("")
    refused(tmp_path, "has no config.yaml: give a data set")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name.rpartition("/")[2])


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder, name.rpartition("/")[2])


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for length in sorted({0, 1, len(content) // 2, len(content) - 2}):
        (folder / name).write_bytes(content[:length])
        refused(folder, name if name != FILES[0] else "")


def test_one_damaged_byte_anywhere_is_found_or_harmless(folder: Path) -> None:
    rng, dataset = np.random.default_rng(0), load_dataset_folder(folder)
    found = 0
    for name in FILES:
        original = (folder / name).read_bytes()
        for _ in range(80):
            damaged = bytearray(original)
            position = int(rng.integers(len(damaged)))
            damaged[position] ^= int(rng.integers(1, 256)) if rng.random() < 0.5 else 1 << int(rng.integers(8))
            (folder / name).write_bytes(damaged)
            try:
                assert_equal(load_dataset_folder(folder), dataset)
            except DatasetFormatError as problem:
                found += "\n" not in str(problem)
        (folder / name).write_bytes(original)
    assert found >= 0.97 * 80 * len(FILES)


def test_another_gate_pool_in_the_description_is_found(folder: Path) -> None:
    """One changed letter would make other circuits of the same tokens."""
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("- h\n", "- x\n", 1))
    refused(folder, "config.yaml' is damaged or was edited", "copy or generate")


@pytest.mark.parametrize("name", [name for name in FILES if name != "config.yaml"])
def test_garbage_with_right_checksums(folder: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    original = (folder / name).read_bytes()
    for trial in range(60):
        damaged = bytearray(original)
        for _ in range(1 + trial % 4):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        (folder / name).write_bytes(damaged[: int(rng.integers(len(damaged)))] if trial % 5 == 0 else damaged)
        seal(folder)
        try:
            load_dataset_folder(folder)  # a changed number within its range cannot be told from a right one
        except DatasetFormatError:
            continue


def replace_array(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / DS / f"{key}.safetensors"
        save_file({key: np.ascontiguousarray(change(load_file(file)[key]))}, file)
        seal(folder)

    return damage


def replace_prompts(value: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / DS / "prompts.json").write_text(value if isinstance(value, str) else json.dumps(value))
        seal(folder)

    return damage


@pytest.mark.parametrize(
    ("damage", "content"),
    [
        (replace_array("x", lambda x: x.astype(np.int16)), "x has dtype int16, expected int8"),
        (replace_array("x", lambda x: x.astype(np.float32)), "x has dtype float32"),
        (replace_array("y", lambda y: y.astype(np.int64)), "y has dtype int64, expected int32"),
        (replace_array("z", lambda z: z.astype(np.uint16)), "z has dtype uint16"),
        (replace_array("x", lambda x: x[0]), "x has shape (2, 4)"),
        (replace_array("x", lambda x: x[:0]), "x has shape (0, 2, 4)"),
        (replace_array("x", lambda x: x[:3]), "y has shape (5,), expected (3,)"),
        (replace_array("y", lambda y: y[:3]), "y has shape (3,), expected (5,)"),
        (replace_array("y", lambda y: y[:, None]), "y has shape (5, 1)"),
        (replace_array("z", lambda z: z[:, :1]), "z has shape (5, 1), expected (5, 2)"),
        (replace_array("y", with_entry((2,), 99)), "y refers to prompts that do not exist"),
        (replace_array("y", with_entry((2,), -1)), "y refers to prompts that do not exist"),
        (replace_array("x", with_entry((1, 0, 2), 4)), "x has tokens outside the pool ['h', 'cx']"),
        (replace_array("x", with_entry((1, 0, 2), -128)), "x has tokens outside the pool"),
        (replace_array("z", with_entry((1, 0), 3)), "z has sizes outside 2 qubits and 4 time steps"),
        (replace_array("z", with_entry((1, 0), 0)), "z has sizes outside"),
        (replace_array("z", with_entry((1, 1), 5)), "z has sizes outside"),
        (replace_array("z", with_entry((1, 1), -1)), "z has sizes outside"),
        (replace_prompts("[oops"), "cannot be read"),
        (replace_prompts("[" * 100_000), "cannot be read"),
        (replace_prompts({"a": 1}), "prompts.json is not a list of distinct texts"),
        (replace_prompts([1, 2, 3, 4]), "prompts.json is not a list of distinct texts"),
        (replace_prompts(["a", "a", "b", "c"]), "prompts.json is not a list of distinct texts"),
        (replace_prompts([]), "y refers to prompts that do not exist"),
        (lambda folder: describe_as(folder, gate_pool=["h"]), "x has tokens outside the pool ['h']"),
        (lambda folder: describe_as(folder, gate_pool=["h", "foo"]), "unknown gate 'foo'"),
        (lambda folder: describe_as(folder, gate_pool=["h", ["cx"]]), "gate_pool is not a list of names"),
        (lambda folder: describe_as(folder, gate_pool="h"), "gate_pool is not a list of names"),
        (lambda folder: describe_as(folder, gate_pool=None), "gate_pool is not a list of names"),
        (lambda folder: describe_as(folder, gate_pool=[]), "gate set is empty"),
        (lambda folder: describe_as(folder, format="other"), "does not describe a quantum_diffusion.dataset"),
        (lambda folder: describe_as(folder, format_version=2), "format version 2, but this software reads 1: update"),
        (lambda folder: describe_as(folder, format_version=[1]), "format version none"),
    ],
)
def test_inconsistent_content_with_right_checksums(folder: Path, damage: Callable[[Path], None], content: str) -> None:
    damage(folder)
    refused(folder, content)


def test_unitaries_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for change, content in (
        (lambda U: U[:, :1], "U has shape (5, 1, 4, 4)"),
        (lambda U: U * np.float32("nan"), "U has values that are not finite"),
        (lambda U: U.astype(np.float16), "U has dtype float16, expected float32"),
    ):
        save_dataset(random_dataset(with_unitaries=True), path, {})
        replace_array("U", change)(path)
        refused(path, content)


def checksum_names(**changes: Any) -> Callable[[Mapping[str, str]], Any]:
    return lambda checksums: {**checksums, **changes}


@pytest.mark.parametrize(
    "change",
    [
        lambda checksums: None,
        lambda checksums: [],
        lambda checksums: {},
        lambda checksums: {"config.yaml": checksums["config.yaml"]},
        checksum_names(**{"../../secret": "0" * 64}),
        checksum_names(**{"/etc/passwd": "0" * 64}),
        checksum_names(**{f"{DS}/U.safetensors": "0" * 64}),
        checksum_names(**{f"{DS}/x.safetensors": None}),
        checksum_names(**{"config.yaml": ["0"]}),
    ],
)
def test_checksums_name_exactly_the_files_of_the_folder(
    folder: Path, change: Callable[[Mapping[str, str]], Any]
) -> None:
    (folder.parent / "secret").write_text("secret")
    file = folder / "config.yaml"
    description = yaml.safe_load(file.read_text())
    checksums = description.pop("sha256")
    file.write_text(
        yaml.safe_dump(description, sort_keys=False) + yaml.safe_dump({"sha256": change(checksums)}, sort_keys=False)
    )
    refused(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        "- a\n- list",
        "a: [1, 2",
        "\t- tab",
        "target: genQC.dataset.circuits_dataset.CircuitsConfigDataset\nparams: {}\n",
        "!!python/object/apply:os.system ['touch pwned']",
        "format: quantum_diffusion.dataset\nformat_version: !!python/object/apply:os.system ['touch pwned']\n",
        "a: !!python/name:os.system",
        "a: !!bool x",
        "a: !!int ''",
        "a: !!timestamp x",
        "a: 2001-99-99",
        "? {a: 1}\n: b",
        "[" * 5000,
        "{a: " * 5000,
        "a: &x [*x]",
        "format: quantum_diffusion.dataset\nformat_version: 1\nsha256: {config.yaml: 3}\n",
        "a: &a [l,l,l,l,l,l,l,l,l]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "format: quantum_diffusion.dataset\nformat_version: *i\n",
    ],
)
def test_foreign_or_hostile_descriptions(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "config.yaml").write_text(text)
    refused(folder, "config.yaml" if "*i" not in text else "format version")
    assert not (tmp_path / "pwned").exists()


def test_a_description_that_is_no_text(folder: Path) -> None:
    for content in (b"\xff\xfe\x00a", b"\x00" * 100, os.urandom(64)):
        (folder / "config.yaml").write_bytes(content)
        refused(folder, "config.yaml")


def test_an_unreadable_file_is_described(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(storage, "sha256_of", fail)
    refused(folder, "cannot read the data set", "permission denied")


def test_a_file_system_that_cannot_map_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_dataset_folder(folder)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    for name in ("safe_open", "np.memmap"):
        with monkeypatch.context() as patched:
            patched.setattr(f"quantum_diffusion.data.storage.{name}", fail)
            assert_equal(load_dataset_folder(folder), expected)


def test_a_data_set_cut_short_while_it_is_in_use_is_told_at_the_next_epoch(folder: Path) -> None:
    loader, _ = DatasetLoader().get_dataloaders(load_dataset_folder(folder), 2, 0.0)
    list(loader.epoch(0))
    os.truncate(folder / DS / "z.safetensors", 10)
    with pytest.raises(DatasetFormatError, match="changed while in use: one of its files has become shorter"):
        next(loader.epoch(1))


# --------------------------------------------------------------------------------------------- writing


def test_a_data_set_is_replaced_as_a_whole(folder: Path) -> None:
    other = random_dataset(7, num_circuits=3)
    save_dataset(other, folder, {})
    assert_equal(load_dataset_folder(folder), other)
    assert os.listdir(folder.parent) == ["data"]


@pytest.mark.parametrize(
    "name", ["notes.txt", "dataset/ds/notes.txt", ".hidden", "photos/cat.jpg", "dataset/ds/x.safetensors.bak"]
)
def test_a_folder_with_anything_else_in_it_is_never_replaced(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("precious")
    before = state_of(folder)
    with pytest.raises(DatasetFormatError, match=f"contains '{name}' .*choose another folder, or empty this one"):
        save_dataset(random_dataset(1), folder, {})
    assert state_of(folder) == before


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text("somebody: else's")
    with pytest.raises(DatasetFormatError, match=r"contains 'config.yaml' and is not just a data set"):
        save_dataset(random_dataset(), home, {})
    assert (home / "config.yaml").read_text() == "somebody: else's"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(DatasetFormatError, match="is not a folder: give a folder"):
        save_dataset(random_dataset(), tmp_path / "file", {})
    assert (tmp_path / "file").read_text() == "precious"


def test_links_out_of_the_folder_are_not_ours(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(DatasetFormatError, match="contains 'link'"):
        check_replaceable(folder)


def test_an_empty_or_damaged_data_set_may_be_replaced(folder: Path, tmp_path: Path) -> None:
    (folder / "config.yaml").write_text("damaged")
    (folder / DS / "y.safetensors").unlink()
    (tmp_path / "empty" / "dataset").mkdir(parents=True)
    for path in (folder, tmp_path / "empty"):
        save_dataset(random_dataset(2), path, {})
        assert_equal(load_dataset_folder(path), random_dataset(2))


@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool) -> None:
    if existing:
        save_dataset(random_dataset(), tmp_path / "data", {})
    before = state_of(tmp_path)

    def fail(key: str, shape: tuple[int, ...]) -> bytes:
        if key == "x":
            return b"half"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, "_safetensors_header", fail)
    with pytest.raises(
        DatasetFormatError, match=r"cannot write '.*data': the disk is full .*nothing was changed there"
    ):
        save_dataset(random_dataset(1), tmp_path / "data", {})
    after = state_of(tmp_path)
    assert {key: value[1:] for key, value in after.items()} == {key: value[1:] for key, value in before.items()}


def test_pieces_make_the_same_bytes_as_the_whole(tmp_path: Path) -> None:
    """Also the bytes that safetensors itself would write."""
    whole = random_dataset()
    pieces = [whole.take(rows) for rows in np.array_split(np.arange(len(whole)), 3)]
    save_dataset(whole, tmp_path / "whole", {})
    save_blocks(iter(pieces), len(whole), tmp_path / "pieces", {})
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes(), name
    save_file({"x": whole.tokens}, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "whole" / DS / "x.safetensors").read_bytes()


def test_a_limit_of_the_system_is_described(tmp_path: Path) -> None:
    """The real thing: the system refuses to write more than 300 bytes a file."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from quantum_diffusion.data.storage import load_dataset_folder, save_dataset\n"
        "from quantum_diffusion.errors import DatasetFormatError\n"
        "dataset = load_dataset_folder(Path(sys.argv[1]))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try:\n"
        "    save_dataset(dataset, Path(sys.argv[2]), {})\n"
        "except DatasetFormatError as problem:\n"
        "    print(problem)\n"
    )
    save_dataset(random_dataset(num_circuits=200), tmp_path / "data", {})
    command = [sys.executable, "-c", code, str(tmp_path / "data"), str(tmp_path / "new")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "cannot write" in result.stdout
    assert "File too large" in result.stdout
    assert os.listdir(tmp_path) == ["data"]


def test_a_killed_writer_leaves_no_half_data_set(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from quantum_diffusion import files\n"
        "from quantum_diffusion.data.storage import load_dataset_folder, save_dataset\n"
        "dataset = load_dataset_folder(Path(sys.argv[1]))\n"
        "def stop(*_):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "files._replace_entry = stop\n"
        "save_dataset(dataset, Path(sys.argv[2]), {})\n"
    )
    save_dataset(random_dataset(), tmp_path / "parts" / "old", {})
    command = [sys.executable, "-c", code, str(tmp_path / "parts" / "old"), str(tmp_path / "parts" / "new")]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    names = os.listdir(tmp_path / "parts")
    assert "new" not in names
    assert len(names) == 2
    hidden = next(name for name in names if name != "old")
    assert is_dataset_folder(tmp_path / "parts" / hidden / "new" / "new")  # complete, but not in place: not to be used
    assert_equal(DatasetLoader().load_dataset(tmp_path / "parts"), random_dataset())
    save_dataset(random_dataset(1), tmp_path / "parts" / "new", {})
    assert len(DatasetLoader().load_dataset(tmp_path / "parts")) == 10


# ----------------------------------------------------------------------------------- a folder of folders


def test_a_damaged_part_is_not_left_out(tmp_path: Path) -> None:
    for number in range(3):
        save_dataset(random_dataset(number), tmp_path / f"{number}q", {})
    (tmp_path / "1q" / "config.yaml").unlink()
    refused(tmp_path, "1q", "has no config.yaml")


def test_what_is_no_data_set_is_left_out(tmp_path: Path) -> None:
    save_dataset(random_dataset(), tmp_path / "3q", {})
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("words")
    shutil.copytree(tmp_path / "3q", tmp_path / ".3q.new-abc")
    assert_equal(DatasetLoader().load_dataset(tmp_path), random_dataset())
    refused(tmp_path / "notes", "is empty")
