"""The Hugging Face Hub: folders that `hf://owner/name` names, downloaded once into the Hub's own cache, and uploads.

Data sets and models use it alike; what may be in such a folder is for them to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantum_diffusion.errors import ConfigError, QuantumDiffusionError, first_line

Kind = Literal["model", "dataset"]

PREFIX = "hf://"
_WORDS: dict[Kind, str] = {"model": "model", "dataset": "data set"}


@dataclass(frozen=True)
class HubAddress:
    """What `hf://owner/name[/folder]` says.

    Attributes:
        repository: owner/name.
        folder: Folder inside it; empty for all of it.
    """

    repository: str
    folder: str = ""

    def __str__(self) -> str:
        return PREFIX + "/".join(filter(None, (self.repository, self.folder)))


def hub_address(text: str, error: type[QuantumDiffusionError]) -> HubAddress | None:
    """Read an address; None for a text that does not begin with `hf:`.

    Args:
        text: `hf://owner/name[/folder]`; with single slashes, as a `Path` writes it, it is the same.
        error: Raised where it begins with `hf:` and is none.
    """
    if not text.startswith("hf:"):
        return None
    names = [name for name in text.removeprefix("hf:").split("/") if name]
    if len(names) < 2 or not all(re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) for name in names):
        raise error(
            f"cannot read the address {PREFIX + '/'.join(names)!r}: expected hf://owner/name or hf://owner/name/folder"
        )
    return HubAddress("/".join(names[:2]), "/".join(names[2:]))


def download(address: HubAddress, kind: Kind, patterns: Iterable[str], error: type[QuantumDiffusionError]) -> Path:
    """Download the files of an address, or take them from the cache; returns its folder, which may not be there.

    Args:
        address: Of what.
        kind: What it is a repository of.
        patterns: Names of the files that are needed; nothing else is downloaded.
        error: Raised where nothing can be downloaded.
    """
    from huggingface_hub import constants, errors, snapshot_download

    here = [f"{address.folder}/{pattern}" if address.folder else pattern for pattern in patterns]
    try:
        return Path(snapshot_download(address.repository, repo_type=kind, allow_patterns=here)) / address.folder
    except errors.GatedRepoError:
        what = "its owner wants to be asked: ask on its page, then run `hf auth login`"
    except errors.RepositoryNotFoundError:
        what = f"there is no such {_WORDS[kind]}, or it is private: check the name, or run `hf auth login`"
    except errors.LocalEntryNotFoundError:
        reason = "HF_HUB_OFFLINE=1 is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        what = f"{reason} and not all of it was downloaded before: connect, or give a folder on this machine"
    except Exception as problem:  # the network has more ways to fail than the library has names for
        what = f"{first_line(problem)}; try again, or give a folder on this machine"
    raise error(f"cannot download {str(address)!r}: {what}")


def upload(folder: Path, address: HubAddress, kind: Kind, patterns: Iterable[str], private: bool) -> str:
    """Upload files of a folder, into a repository that is made where there is none; returns the web address.

    Args:
        folder: The folder.
        address: Where to.
        kind: What it is a repository of.
        patterns: Names of the files to upload.
        private: Whether a repository that is made is private.

    Raises:
        ConfigError: It cannot be uploaded.
    """
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"cannot upload to {str(address)!r}: HF_HUB_OFFLINE=1 is set: unset it, and connect")
    api = HfApi()
    try:
        api.create_repo(address.repository, repo_type=kind, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=address.repository,
            repo_type=kind,
            folder_path=folder,
            path_in_repo=address.folder or None,
            allow_patterns=list(patterns),
            commit_message="Upload by quantum_diffusion",
        )
    except errors.LocalTokenNotFoundError:
        what = "you are not logged in: run `hf auth login`, or set HF_TOKEN"
    except errors.HfHubHTTPError as problem:
        status = getattr(problem.response, "status_code", None)
        refused = "you may not write there: check the owner, or run `hf auth login` with a token that may write"
        what = refused if status in (401, 403) else f"{first_line(problem)}; try again"
    except Exception as problem:  # the network has more ways to fail than the library has names for
        what = f"{first_line(problem)}; try again"
    else:
        return str(getattr(done, "commit_url", done))
    raise ConfigError(f"cannot upload to {str(address)!r}: {what}")
