"""Download and upload of `hf://owner/name` folders on the Hugging Face Hub, through the Hub's own cache.

Both models and data sets use it; their own modules check what a folder holds.
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
    """A parsed address `hf://owner/name[/folder]`.

    Attributes:
        repository: owner/name.
        folder: Folder inside the repository; empty for the whole repository.
    """

    repository: str
    folder: str = ""

    def __str__(self) -> str:
        return PREFIX + "/".join(filter(None, (self.repository, self.folder)))


def hub_address(text: str, error: type[QuantumDiffusionError]) -> HubAddress | None:
    """Parse an address; returns None for text that does not begin with `hf:`.

    Args:
        text: `hf://owner/name[/folder]`; single slashes, which a `Path` makes of it, work too.
        error: Raised if the text begins with `hf:` but is no address.
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
    """Download the files at an address, or take them from the cache; returns their folder, which may not exist.

    Args:
        address: What to download.
        kind: The kind of repository.
        patterns: Names of the files to download, with wildcards.
        error: Raised if the download fails.
    """
    from huggingface_hub import constants, errors, snapshot_download

    here = [f"{address.folder}/{pattern}" if address.folder else pattern for pattern in patterns]
    try:
        return Path(snapshot_download(address.repository, repo_type=kind, allow_patterns=here)) / address.folder
    except errors.GatedRepoError:
        what = "access is restricted: request access on its page, then run `hf auth login`"
    except errors.RepositoryNotFoundError:
        what = f"there is no such {_WORDS[kind]}, or it is private: check the name, or run `hf auth login`"
    except errors.LocalEntryNotFoundError:
        reason = "HF_HUB_OFFLINE=1 is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        what = f"{reason} and the cache does not hold all of it: connect, or give a local folder"
    except Exception as problem:  # not every network failure has a class of its own
        what = f"{first_line(problem)}; try again, or give a local folder"
    raise error(f"cannot download {str(address)!r}: {what}")


def upload(folder: Path, address: HubAddress, kind: Kind, patterns: Iterable[str], private: bool) -> str:
    """Upload files of a folder, creating the repository if needed; returns the web address.

    Args:
        folder: The folder.
        address: Where to upload to.
        kind: The kind of repository.
        patterns: Names of the files to upload, with wildcards.
        private: Whether a new repository is private.

    Raises:
        ConfigError: The upload failed; the message says why.
    """
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"cannot upload to {str(address)!r}: HF_HUB_OFFLINE=1 is set: unset it and connect")
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
        refused = "permission denied: check the owner, or run `hf auth login` with a token that has write access"
        what = refused if status in (401, 403) else f"{first_line(problem)}; try again"
    except Exception as problem:  # not every network failure has a class of its own
        what = f"{first_line(problem)}; try again"
    else:
        return str(getattr(done, "commit_url", done))
    raise ConfigError(f"cannot upload to {str(address)!r}: {what}")
