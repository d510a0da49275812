"""The sections of commands that read what others made: inspect, export-genqc and runs.

They take a folder and say what is in it, or write it in another form.
"""

from __future__ import annotations

from quantum_diffusion.config.schema.values import PathText, Text
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

    dataset: PathText
    """Data set to export: a folder, a folder of data sets, or hf://owner/name."""
    output_path: PathText
    """Folder to write; it must not exist, or be empty."""


class RunsConfig(Section):
    """What `quantum-diffusion runs` does (keys `runs.*`)."""

    folder: PathText = "./models"
    """Folder that holds trained models, at any depth."""
    metric: Text = "validation_loss"
    """Metric of the picture."""
    picture: PathText | None = None
    """Where to draw the curves of the runs, of many the 10 newest (PNG); null draws none."""
