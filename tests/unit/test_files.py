"""Writing files and folders: the old state or the complete new one, and nothing lying about."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantum_diffusion import files
from quantum_diffusion.errors import CheckpointError, DatasetFormatError, QuantumDiffusionError
from quantum_diffusion.files import (
    Lock,
    TakenError,
    check_can_write,
    describe,
    new_entries,
    new_file,
    new_folder,
    refusals_told,
    sha256_of,
    yaml_text,
)


def write(folder: Path, text: str) -> None:
    with new_folder(folder, CheckpointError) as staging:
        (staging / "deep").mkdir()
        (staging / "deep" / "file.txt").write_text(text)


def fill_disk(path: Path, *_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_appears_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "some" / "where"
    with new_folder(target, CheckpointError) as staging:
        (staging / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert os.listdir(target.parent) == ["where"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027])
def test_umask_and_group_are_those_of_the_user(tmp_path: Path, umask: int) -> None:
    parent = tmp_path / "shared"
    parent.mkdir()
    parent.chmod(0o2775)
    before = os.umask(umask)
    try:
        write(parent / "out", "new")
        write_entries(parent / "entries", "new")
        with new_file(parent / "deep" / "file.txt", CheckpointError) as file, Lock(parent / "lock").hold():
            file.write_text("new")
        made = list(parent.rglob("*"))
    finally:
        os.umask(before)
    assert len(made) == 11
    for path in made:
        expected = 0o2777 & ~umask if path.is_dir() else 0o666 & ~umask
        assert path.stat().st_mode & 0o7777 == expected, path
        assert path.stat().st_gid == parent.stat().st_gid


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "stale").write_text("")
    write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "new"
    assert os.listdir(tmp_path / "out") == ["deep"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("problem", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_state(tmp_path: Path, problem: BaseException) -> None:
    write(tmp_path / "out", "old")

    def fail() -> None:
        with new_folder(tmp_path / "out", CheckpointError) as staging:
            (staging / "half").write_text("half")
            raise problem

    with pytest.raises(type(problem)):
        fail()
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_full_disk_leaves_the_old_state_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out", "old")
    monkeypatch.setattr(files, "flush", fill_disk)
    with pytest.raises(CheckpointError, match=r"cannot write '.*out': the disk is full \(free some space.*nothing was"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def refuse(monkeypatch: pytest.MonkeyPatch, function: str, name: str) -> None:
    """Let `os.rename` or `os.replace` fail for what is to get a name."""
    really = getattr(os, function)

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == name and "new" in Path(source).parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        really(source, target)

    monkeypatch.setattr(os, function, fail)


@pytest.mark.parametrize("use", [write, lambda path, text: write_entries(path.parent, text, path.name)])
def test_what_is_complete_but_cannot_take_its_place_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path, str], None]
) -> None:
    write(tmp_path / "out", "old")
    refuse(monkeypatch, "replace", "out")
    with pytest.raises(
        CheckpointError, match=r"Input/output error; the files not yet in place are complete in '.*'"
    ) as caught:
        use(tmp_path / "out", "new")
    assert "nothing was changed" not in str(caught.value)
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "old", "it is back in its place"
    (kept,) = (path for path in tmp_path.iterdir() if path.name not in ("out", "index"))
    assert str(kept) in str(caught.value)
    assert (kept / "out" / "deep" / "file.txt").read_text() == "new"


def test_nfs_that_refuses_a_rename_it_has_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def answer_twice(source: Path, target: Path) -> None:
        replace(source, target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", answer_twice)
    write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "new"


def test_what_fails_after_the_result_is_in_place_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = files.flush

    def fail_for_folders(path: Path) -> None:
        if path.is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(path)

    monkeypatch.setattr(files, "flush", fail_for_folders)
    monkeypatch.setattr(os, "rmdir", lambda *_, **__: fill_disk(tmp_path))
    for text in ("old", "new"):
        write(tmp_path / "out", text)
        write_entries(tmp_path / "entries", text)
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "new"
    assert (tmp_path / "entries" / "index").read_text() == "new"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_that_does_not_know_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    check_can_write(tmp_path / "out", CheckpointError)
    write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "new"


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "big_disk" / "real", "old")
    (tmp_path / "out").symlink_to(tmp_path / "big_disk" / "real")
    write(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "big_disk" / "real" / "deep" / "file.txt").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["big_disk", "out"]
    assert os.listdir(tmp_path / "big_disk") == ["real"]


def test_a_file_appears_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    for text in ("old", "new"):
        with new_file(target, CheckpointError) as staging:
            staging.write_text(text)
            assert not target.exists() or target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["file"]


@pytest.mark.parametrize(
    ("use", "message"), [(new_file, "a folder is where a file"), (new_folder, "a file is where a")]
)
def test_a_file_and_a_folder_do_not_replace_each_other(tmp_path: Path, use: Any, message: str) -> None:
    write(tmp_path / "folder", "mine")
    (tmp_path / "file").write_text("mine")
    target = tmp_path / ("folder" if use is new_file else "file")
    with pytest.raises(CheckpointError, match=message), use(target, CheckpointError) as staging:
        (staging if use is new_file else staging / "file").write_text("new")
    assert (tmp_path / "folder" / "deep" / "file.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_survives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(files, "flush", fill_disk)
    with (
        pytest.raises(CheckpointError, match="the disk is full"),
        new_file(tmp_path / "file", CheckpointError) as staging,
    ):
        staging.write_text("new")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("use", [new_folder, new_file])
def test_a_file_among_the_parents_is_named(tmp_path: Path, use: object) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DatasetFormatError, match="a file is where a folder should be"),
        use(tmp_path / "file" / "x", DatasetFormatError),
    ):  # type: ignore[operator]
        pass
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", "a file is where a folder should be"),
        ("file/x/y", "a file is where a folder should be"),
        ("a" * 300, "the name is too long"),
        ("deep/" + "a" * 300, "the name is too long"),
        ("/", "the current folder"),
        ("cwd", "the current folder .give a folder inside it"),
        ("", "the current folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    with pytest.raises(DatasetFormatError, match=f"cannot write .*: .*{message}"):
        check_can_write(tmp_path / place, DatasetFormatError)
    assert sorted(os.listdir(tmp_path)) == ["cwd", "file"]


def test_a_folder_without_permission_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # to root everything is permitted
    with pytest.raises(DatasetFormatError, match="permission denied"):
        check_can_write(tmp_path / "new" / "folder", DatasetFormatError)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_file_system_that_takes_no_folders_is_known_beforehand() -> None:
    with pytest.raises(DatasetFormatError, match=r"cannot write '/proc/x/y': \w+"):  # even to root, who may write
        check_can_write(Path("/proc/x/y"), DatasetFormatError)
    with pytest.raises(
        DatasetFormatError, match=r"cannot write '/proc': a file system is mounted there \(give a folder"
    ):
        check_can_write(Path("/proc"), DatasetFormatError)


def test_a_folder_that_may_not_be_replaced_is_known_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out", "old")
    monkeypatch.setattr(os, "access", lambda place, mode: place != tmp_path / "out")  # to root everything is permitted
    with pytest.raises(DatasetFormatError, match="permission denied"):
        check_can_write(tmp_path / "out", DatasetFormatError)


@pytest.mark.parametrize(
    ("function", "number", "message"),
    [
        ("rename", errno.ENOSYS, "its file system does not support this .choose a folder on another file system"),
        ("mkdir", errno.ENOTSUP, "its file system does not support this"),
        ("fsync", errno.EDQUOT, "your quota is used up"),
        ("fsync", errno.ENOSPC, "the disk is full"),
    ],
)
def test_what_a_place_cannot_do_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, message: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(DatasetFormatError, match=message):
        check_can_write(tmp_path / "deep" / "out", DatasetFormatError)
    monkeypatch.undo()
    assert not os.listdir(tmp_path)


def test_looking_beforehand_changes_nothing(tmp_path: Path) -> None:
    check_can_write(tmp_path / "a" / "b" / "c", DatasetFormatError)
    check_can_write(tmp_path, DatasetFormatError)
    assert not os.listdir(tmp_path)


def test_a_killed_writer_leaves_the_old_state(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from quantum_diffusion import files\n"
        "from quantum_diffusion.errors import CheckpointError\n"
        "with files.new_folder(Path(sys.argv[1]), CheckpointError) as staging:\n"
        "    (staging / 'file').write_text('half')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2  # the half-written one lies hidden beside it ...
    write(tmp_path / "out", "new")  # ... until the next writer removes it
    assert (tmp_path / "out" / "deep" / "file.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["out", "ds[12]", "a*b", "?", "-rf", "${x}", "a\nb", "\udcff", "'\"", "x.old", "new"])
def test_a_kill_between_the_two_renames_is_mended_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in (name, "ds1", "axb", "x"):
        write(tmp_path / other, "old")
    with monkeypatch.context() as patched:
        refuse(patched, "replace", name)
        patched.setattr(files, "_discard", fill_disk)  # nothing is put back, as after a kill at this moment
        with pytest.raises(CheckpointError):
            write(tmp_path / name, "new")
    assert not (tmp_path / name).exists()
    (staging,) = tmp_path.glob(".*")
    monkeypatch.setattr(os, "kill", no_such_process)
    with new_file(tmp_path / "another", CheckpointError) as file:
        file.write_text("")
    assert (tmp_path / name / "deep" / "file.txt").read_text() == "old"
    assert not staging.exists()
    assert {"ds1", "axb", "x", name, "another"} <= set(os.listdir(tmp_path))


def no_such_process(*_: object) -> None:
    raise ProcessLookupError


@pytest.mark.parametrize(
    "name",
    [
        f"{files._STAGING}0123456789ab-1-01234567",  # of another host, or of this one before it was started again
        f"{files._STAGING}{files._process_space()}-{os.getpid()}-01234567",  # of a writer that is still at work
        f"{files._STAGING}{files._process_space()}-{10**30}-01234567",
        f"{files._STAGING}{files._process_space()}-x-01234567",
        files._STAGING,
        ".out.new-999999-abcdefgh",  # of an earlier version, which knew no hosts
        ".out.new-999999-abcdefgh.old",
        ".new-entries-999999-abcdefgh",
    ],
    ids=range(8),  # the names differ from process to process
)
def test_what_may_be_of_a_living_writer_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "old" / "out").mkdir(parents=True)
    write(tmp_path / "out", "new")
    write_entries(tmp_path, "new")
    assert (tmp_path / name / "old" / "out").is_dir()


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_the_system_refuses_for_real_is_described(tmp_path: Path) -> None:
    """A process that may write 100 bytes a file: a disk that is full after them."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from quantum_diffusion.errors import CheckpointError\n"
        "from quantum_diffusion.files import new_folder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    with new_folder(Path(sys.argv[1]), CheckpointError) as staging:\n"
        "        (staging / 'file').write_bytes(bytes(1000))\n"
        "except CheckpointError as problem:\n"
        "    print(problem)\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.rstrip().endswith("File too large; nothing was changed there")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "permission denied"), (errno.EIO, "Input/output error")],
)
def test_problems_are_described_with_their_mend(number: int, text: str) -> None:
    assert text in describe(OSError(number, os.strerror(number)))
    assert describe(OSError("just words")) == "just words"


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def write_entries(folder: Path, text: str, part: str = "part") -> None:
    with new_entries(folder, "index", CheckpointError) as staging:
        (staging / part / "deep").mkdir(parents=True)
        (staging / part / "deep" / "file.txt").write_text(text)
        (staging / "index").write_text(text)


def test_entries_are_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    write_entries(tmp_path, "old")
    write_entries(tmp_path, "new")
    assert sorted(os.listdir(tmp_path)) == ["index", "other", "part"]
    assert (tmp_path / "part" / "deep" / "file.txt").read_text() == "new"
    assert (tmp_path / "index").read_text() == "new"
    assert (tmp_path / "other").read_text() == "mine"


def test_the_last_entry_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[str] = []
    replace = os.replace

    def record(source: Path, target: Path) -> None:
        placed.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", record)
    write_entries(tmp_path / "out", "x")
    assert placed == ["part", "index"]


def test_a_full_disk_leaves_the_old_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_entries(tmp_path, "old")
    monkeypatch.setattr(files, "flush", fill_disk)
    with pytest.raises(CheckpointError, match="the disk is full"):
        write_entries(tmp_path, "new")
    assert (tmp_path / "index").read_text() == "old"
    assert (tmp_path / "part" / "deep" / "file.txt").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["index", "part"]


def test_entries_left_by_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{files._STAGING}{files._process_space()}-{dead_process()}-01234567" / "new").mkdir(parents=True)
    write_entries(tmp_path, "new")
    assert sorted(os.listdir(tmp_path)) == ["index", "part"]


# --------------------------------------------------------------------------------------------------- locks


def test_a_lock_keeps_others_out_and_may_be_nested(tmp_path: Path) -> None:
    lock, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    with lock.hold() as is_outermost, lock.hold() as is_inner:
        assert (is_outermost, is_inner) == (True, False)
        with pytest.raises(TakenError), other.hold(0.1):
            pass
    with other.hold():
        pass


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from quantum_diffusion.files import Lock\n"
        "with Lock(Path(sys.argv[1])).hold():\n"
        "    os.abort()\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False, timeout=60)
    assert result.returncode == -signal.SIGABRT
    with Lock(tmp_path / "lock").hold():
        pass


def test_a_lock_that_its_last_holder_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, removed = fcntl.flock, []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append((tmp_path / "lock").unlink())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with Lock(tmp_path / "lock").hold(10.0), pytest.raises(TakenError), Lock(tmp_path / "lock").hold():
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_without_locks_work_goes_on_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    for _ in range(2):
        with Lock(tmp_path / "lock").hold() as is_outermost:
            assert is_outermost
    (warning,) = caplog.messages
    assert "does not support locks: make sure that no other run writes there" in warning


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fill_disk)
    with pytest.raises(OSError, match="No space"), Lock(tmp_path / "lock").hold():
        pass


def test_what_the_system_refuses_anywhere_is_one_line() -> None:
    with (
        pytest.raises(QuantumDiffusionError, match=r"^operating system error: '/x': permission denied"),
        refusals_told(),
    ):
        raise PermissionError(errno.EACCES, "no", "/x")


@pytest.mark.parametrize("allow_unicode", [False, True])
def test_yaml_is_read_as_it_was_written(allow_unicode: bool) -> None:
    texts = [
        "plain",
        "",
        "no",
        "1e5",
        "1_000",
        "a: b #",
        "' \"",
        "\ttab\nline ",
        "é 量子 \U0001f600",
        "\udcff.yaml",
        "x " * 90,
    ]
    values = {text: [text, {"deep": [text]}, 1, 1e-20, float("inf"), True, None, [], {}] for text in texts}
    text = yaml_text(values, allow_unicode)
    assert yaml.safe_load(text) == values
    assert list(yaml.safe_load(text)) == texts
    assert text.isascii() or allow_unicode
