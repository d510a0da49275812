"""Value types shared by several sections: text, paths, sizes, fractions.

Each holds its own range and checks, so that a field only names its type.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field


def _expand_home(text: str) -> str:
    try:
        return re.sub(r"^(stream:)?~(?=/|$)", lambda found: (found[1] or "") + str(Path.home()), text)
    except RuntimeError:
        raise ValueError(f"{text!r} begins with ~, but you have no home folder: set HOME, or give the path") from None


def _check_name(value: Any) -> Any:
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise ValueError(f"{value!r} is not valid UTF-8: rename it, or change to its folder and give a relative path")
    return value


def _stay_inside(name: str) -> str:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} leads out of output_path: give the name of a folder inside it")
    return name


def _check_store(uri: str) -> str:
    """Refuse text that MLflow would not read as the address of a store, or would read as a folder."""
    if not re.match(r"sqlite:///.|(https?|(postgresql|mysql|mssql)(\+\w+)?)://.|databricks(://|$)", uri):
        raise ValueError(
            f"{uri!r} is not an MLflow store: give sqlite:///FILE, http://SERVER or https://SERVER, postgresql://, "
            "mysql:// or mssql://, or databricks"
        )
    return uri


def _check_jobs(count: int) -> int:
    if count == 0 or count < -1:
        raise ValueError(f"{count} is not a number of workers: give -1 for every core, or 1 or more")
    return count


def _check_rank(value: Any) -> Any:
    if isinstance(value, int) and value not in (1, 2):
        raise ValueError(f"a qubit has rank 1 (separable) or 2 (entangled), given {value}")
    return value


Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[Text, BeforeValidator(_check_name), AfterValidator(_expand_home)]
"""A path, or a keyword; ~ is expanded here, because shells do not expand it in key=~/folder."""
FolderName = Annotated[Text, BeforeValidator(_check_name), AfterValidator(_stay_inside)]
"""A folder inside another."""
StoreUri = Annotated[str, AfterValidator(_check_store)]
"""The address of an MLflow store."""

Engine = Literal["local", "ray"]
Jobs = Annotated[int, Field(le=10**5), AfterValidator(_check_jobs)]
"""Workers of an engine."""

# The upper limits exceed any computer; they keep typing errors away from numpy, torch and the system.
Positive = Annotated[int, Field(ge=1, le=10**12)]
NonNegative = Annotated[int, Field(ge=0, le=10**12)]
Seed = Annotated[int, Field(ge=0, le=2 * 10**19)]
Width = Annotated[int, Field(ge=1, le=2**15)]
Blocks = Annotated[int, Field(ge=1, le=1000)]
BlocksOrNone = Annotated[int, Field(ge=0, le=1000)]
Heads = Annotated[int, Field(ge=1, le=1024)]
Channels = Annotated[int, Field(ge=2, le=4096)]

Fraction = Annotated[float, Field(ge=0, lt=1)]
Growth = Annotated[float, Field(ge=0, le=1000)]
Scale = Annotated[float, Field(ge=0, le=100)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Rate = Annotated[float, Field(gt=0, le=1)]
Rank = Annotated[int, Field(ge=1, le=2), BeforeValidator(_check_rank)]
"""Schmidt rank of a qubit."""
