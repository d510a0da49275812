"""The sections of commands that neither make nor ask a model: what they list, check, report, copy or explain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from quantum_diffusion.config.schema.values import PathText, Seconds, Text
from quantum_diffusion.config.validation import Section


class InspectConfig(Section):
    """What `quantum-diffusion inspect` does (keys `inspect.*`)."""

    dataset: PathText
    """Data set to inspect: a folder, a folder of data sets, or hf://owner/name."""
    save_folder: PathText | None = None
    """Where inspection.json and inspection.png go; null only prints."""
    verbose: bool = True
    """Show the progress bar and the tables."""


class ExportConfig(Section):
    """What `quantum-diffusion export-genqc` does (keys `export.*`)."""

    dataset: PathText | None = None
    """Data set to export: a folder, a folder of data sets, or hf://owner/name."""
    model_dir: PathText | None = None
    """Model to export, a U-Net with CLIP as its text encoder: a folder, or hf://owner/name."""
    output_path: PathText
    """Folder to write; it must not exist, or be empty."""

    @model_validator(mode="after")
    def _check(self) -> ExportConfig:
        if (self.dataset is None) == (self.model_dir is None):
            raise ValueError("give either export.dataset or export.model_dir: one of them is exported")
        return self


class RunsConfig(Section):
    """What `quantum-diffusion runs` does (keys `runs.*`)."""

    folder: PathText = "./models"
    """Folder that holds trained models, at any depth."""
    metric: Text = "validation_loss"
    """Metric of the picture."""
    picture: PathText | None = None
    """Where to draw the curves of the runs, of many the 10 newest (PNG); null draws none."""


class ReportConfig(Section):
    """What `quantum-diffusion report` does (keys `report.*`)."""

    sources: Annotated[tuple[PathText, ...], Field(min_length=1)]
    """What the report is about: folders of models or their runs, of evaluations and of data sets, in any mix, or
    folders that hold some; pretrained:NAME and hf://owner/name work, too. A model brings its own evaluation."""
    output_path: PathText = "./report.html"
    """The page to write, one file that needs no other."""
    title: Text | None = None
    """Title of the page; null names the sources."""
    max_drawings: Annotated[int, Field(ge=0, le=1000)] = 12
    """Most circuits drawn for each evaluation: of the verified ones, and of those that failed."""
    overwrite: bool = False
    """Replace an earlier report at output_path; any other file is never replaced."""


class ModelsConfig(Section):
    """What `quantum-diffusion models` does (keys `models.*`)."""

    folder: PathText | None = None
    """Folder with trained models of your own, at any depth, to list as well; null lists those that come with the
    package alone."""


class UiConfig(Section):
    """What `quantum-diffusion ui` does (keys `ui.*`)."""

    host: Text = "127.0.0.1"
    """Address to serve at: this machine alone can open the page. With another one (0.0.0.0 is all of the machine's)
    anyone who reaches it can search on this machine; there is no password."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to serve at; 0 takes a free one."""
    open_browser: bool = False
    """Open the page in your browser."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    max_seconds: Seconds = 20.0
    """Most time for one search."""
    folder: PathText | None = None
    """Folder with trained models of your own, at any depth, to offer as well; null offers those that come with the
    package alone."""


class PushConfig(Section):
    """What `quantum-diffusion push` does (keys `push.*`)."""

    folder: PathText
    """Folder of a saved model or of a data set."""
    address: Text
    """Where to, hf://owner/name; made where there is none."""
    private: bool = True
    """Whether a repository that is made can be seen by its owner alone."""


class PullConfig(Section):
    """What `quantum-diffusion pull` does (keys `pull.*`)."""

    address: Text
    """What to fetch, hf://owner/name[/folder]."""
    output_path: PathText
    """Folder to write; it must not exist."""
    kind: Literal["model", "dataset"] = "model"
    """What it is."""


class DoctorConfig(Section):
    """What `quantum-diffusion doctor` does (keys `doctor.*`)."""

    self_test: bool = True
    """Ask a shipped model, and check its circuits with Qiskit; takes some seconds."""


class CompletionConfig(Section):
    """What `quantum-diffusion completion` does (keys `completion.*`)."""

    shell: Literal["bash", "zsh", "fish"]
    """Your shell."""
