"""The sections of the smaller commands: inspect, export-genqc, runs, report, models, ui, push, pull, doctor, ..."""

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
    """Folder for inspection.json and inspection.png; null only prints."""
    verbose: bool = True
    """Show the progress bar and the tables."""


class ExportConfig(Section):
    """What `quantum-diffusion export-genqc` does (keys `export.*`)."""

    dataset: PathText | None = None
    """Data set to export: a folder, a folder of data sets, or hf://owner/name."""
    model_dir: PathText | None = None
    """Model to export, a U-Net with CLIP as its text encoder: a folder, or hf://owner/name."""
    output_path: PathText
    """Folder to write to; it must be empty or not exist."""

    @model_validator(mode="after")
    def _check(self) -> ExportConfig:
        if (self.dataset is None) == (self.model_dir is None):
            raise ValueError("give either export.dataset or export.model_dir: one of them is exported")
        return self


class RunsConfig(Section):
    """What `quantum-diffusion runs` does (keys `runs.*`)."""

    folder: PathText = "./models"
    """Folder to search for trained models, at any depth."""
    metric: Text = "validation_loss"
    """Metric to plot in the picture."""
    picture: PathText | None = None
    """PNG file for the curves of the 10 newest runs; null draws none."""


class ReportConfig(Section):
    """What `quantum-diffusion report` does (keys `report.*`)."""

    sources: Annotated[tuple[PathText, ...], Field(min_length=1)]
    """What to report on: any mix of folders of models, runs, evaluations and data sets, or folders that contain some;
    also pretrained:NAME and hf://owner/name. A model's own evaluation is included."""
    output_path: PathText = "./report.html"
    """HTML file to write; it is self-contained."""
    title: Text | None = None
    """Title of the page; null lists the sources."""
    max_drawings: Annotated[int, Field(ge=0, le=1000)] = 12
    """Maximum number of circuits drawn for each evaluation, both of verified and of failed ones."""
    overwrite: bool = False
    """Replace an earlier report at output_path; any other file is never replaced."""


class ModelsConfig(Section):
    """What `quantum-diffusion models` does (keys `models.*`)."""

    folder: PathText | None = None
    """Folder with your own trained models, at any depth; null lists only the pretrained ones."""


class UiConfig(Section):
    """What `quantum-diffusion ui` does (keys `ui.*`)."""

    host: Text = "127.0.0.1"
    """Address to serve at. The default can be opened only from this machine; with any other (0.0.0.0 means all
    interfaces), anyone who can reach it can run searches: there is no password."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to serve at; 0 picks a free one."""
    open_browser: bool = False
    """Open the page in your browser."""
    device: Text = "auto"
    """auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps."""
    max_seconds: Seconds = 20.0
    """Maximum time for one search, in seconds."""
    folder: PathText | None = None
    """Folder with your own trained models, at any depth; null offers only the pretrained ones."""


class PushConfig(Section):
    """What `quantum-diffusion push` does (keys `push.*`)."""

    folder: PathText
    """Folder of a saved model or of a data set."""
    address: Text
    """Where to upload to, hf://owner/name; the repository is created if needed."""
    private: bool = True
    """Whether a new repository is private."""


class PullConfig(Section):
    """What `quantum-diffusion pull` does (keys `pull.*`)."""

    address: Text
    """What to download, hf://owner/name[/folder]."""
    output_path: PathText
    """Folder to write to; it must not exist."""
    kind: Literal["model", "dataset"] = "model"
    """Kind of repository."""


class DoctorConfig(Section):
    """What `quantum-diffusion doctor` does (keys `doctor.*`)."""

    self_test: bool = True
    """Run the pretrained models and check their circuits with Qiskit, which takes several seconds."""


class CompletionConfig(Section):
    """What `quantum-diffusion completion` does (keys `completion.*`)."""

    shell: Literal["bash", "zsh", "fish"]
    """Your shell."""
