"""The work folder of a data set being generated: stores shards, so that an interrupted run can be resumed.

It never removes files that are not ours, never drops shards of other settings silently, and excludes other runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from quantum_diffusion.errors import ConfigError, DatasetFormatError, quoted, quoted_path
from quantum_diffusion.files import Lock, TakenError, describe, with_checksum, without_checksum
from quantum_diffusion.folders import check_nothing_lost, names_in
from quantum_diffusion.tasks.base import Candidates

_LOCK, _SETTINGS = "lock", "settings.json"


class WorkFolder:
    """The work folder of a data set.

    Args:
        destination: Folder of the data set.
        settings: Settings that determine the content of the shards.
        overwrite: Whether shards of other settings may be dropped.
    """

    def __init__(self, destination: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
        self._destination = destination
        real = Path(os.path.realpath(destination))
        self._folder = real.with_name(f".{real.name}.work")
        self._settings = json.dumps(dict(settings), sort_keys=True)
        self._overwrite = overwrite

    @contextmanager
    def locked(self) -> Iterator[Path]:
        """Lock the folder and yield it; it is removed at the end, or if the settings turn out to be impossible.

        Raises:
            DatasetFormatError: Another run holds the lock, the folder has content that would be lost, or it cannot be
                written.
        """
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._check()
            with Lock(folder / _LOCK).hold():
                self._check()
                note = folder / _SETTINGS
                if not note.is_file() or note.read_text(encoding="utf-8") != self._settings:
                    self._remove(keep=(_LOCK,))
                    note.write_text(self._settings, encoding="utf-8")
                try:
                    yield folder
                except ConfigError:
                    self._remove()
                    raise
                with suppress(OSError):  # the data set is complete even if the work folder stays
                    self._remove()
        except TakenError:
            raise DatasetFormatError(
                f"another run is making the data set {quoted_path(self._destination)}: wait for it, or choose another "
                "datasets.output_path"
            ) from None
        except OSError as problem:
            raise DatasetFormatError(f"cannot write {quoted_path(folder)}: {describe(problem)}") from problem

    def _check(self) -> None:
        """Refuse a folder in which other files or an interrupted run's shards would be lost."""
        check_nothing_lost(
            self._folder,
            DatasetFormatError,
            "contains {!r}, but the shards of the data set have to go there: move it away, or choose another "
            "datasets.output_path",
            entries=names_in(self._folder),
            is_ours=lambda name: _is_ours(self._folder / name),
        )
        if self._overwrite or not any(self._folder.glob("shard-*")):
            return
        try:
            theirs = json.loads((self._folder / _SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            theirs = {}
        ours = json.loads(self._settings)
        theirs = theirs if isinstance(theirs, dict) else {}
        different = [key for key in ours if theirs.get(key) != ours[key]]
        if different:
            first = different[0]
            raise DatasetFormatError(
                f"an interrupted run with other settings ({first}={quoted(theirs.get(first))}, not "
                f"{quoted(ours[first])}) left its shards in {quoted_path(self._folder)}: use its settings to "
                "continue it, choose another datasets.output_path, or set datasets.overwrite=true to drop them"
            )

    def _remove(self, keep: tuple[str, ...] = ()) -> None:
        for entry in self._folder.iterdir():
            if _is_ours(entry) and entry.name not in keep:
                entry.unlink(missing_ok=True)
        if not keep:
            with suppress(OSError):  # another process may have added a file
                self._folder.rmdir()

    def _shard_file(self, number: int) -> Path:
        return self._folder / f"shard-{number:06d}"

    def write_shard(self, number: int, shard: Candidates) -> None:
        """Write a shard, inside `locked`; its checksum detects a file cut short by a kill."""
        self._shard_file(number).write_bytes(with_checksum(save(vars(shard))))

    def read_shard(self, number: int) -> Candidates | None:
        """Read a shard; None if it is missing or damaged, so that it is made again."""
        try:
            content = without_checksum(self._shard_file(number).read_bytes())
            if content is None:
                return None
            arrays = load(content)
            return Candidates(arrays["ids"], arrays["labels"], arrays["angles"])
        except (OSError, SafetensorError, KeyError):
            return None


def _is_ours(entry: Path) -> bool:
    name = entry.name.lstrip(".")
    return entry.is_file() and (name in (_LOCK, _SETTINGS) or name.startswith(("shard-", "keys-", "drafts-")))
