"""The commands generate, inspect and export-genqc."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from quantum_diffusion.config.schema import DatasetConfig, ExportConfig, InspectConfig
from quantum_diffusion.config.validation import plain
from quantum_diffusion.errors import CheckpointError, DatasetFormatError, counted
from quantum_diffusion.jobs import Outcome


def generate(config: DatasetConfig) -> Outcome:
    """Generate a data set of labelled circuits."""
    from quantum_diffusion import console
    from quantum_diffusion.data.generation import DatasetGenerator

    generator = DatasetGenerator(config)
    with console.progress_bar("generating", visible=True) as advance:
        report = generator.write(advance)
    console.show_generation(report, config)
    return Outcome(report={"folder": config.output_path, "exhausted": report.exhausted, **asdict(report)})


def inspect(config: InspectConfig) -> Outcome:
    """Summarise a data set and verify every circuit in it."""
    from quantum_diffusion import console
    from quantum_diffusion.evaluation.inspection import generation_settings, inspect_dataset
    from quantum_diffusion.evaluation.report import inspection as words
    from quantum_diffusion.interop.loading import dataset_loader

    folder = None if config.save_folder is None else Path(config.save_folder)
    if folder:
        words.check_save_folder(folder)
    dataset = dataset_loader().load_dataset(config.dataset)
    with console.progress_bar("verifying", config.verbose) as advance:
        report = inspect_dataset(dataset, advance)
    settings = generation_settings(Path(config.dataset))
    try:
        if folder:
            words.save_inspection(report, folder, {"dataset": config.dataset, "settings": settings})
    finally:
        if config.verbose:
            made_with = ", ".join(f"{key}={plain(value)}" for key, value in (settings or {}).items())
            console.show_table("Data set", words.content_rows(report), made_with and f"made with {made_with}")
            console.show_table("Prompts", words.label_rows(report))
            if report.gadgets.pairs:
                console.show_table("Frequent pairs of gates", words.gadget_rows(report), words.gadget_words(report))
            console.show_table("Verification", words.check_rows(report))
            console.out.print()
    if folder:
        written = [name for name in (words.REPORT_FILE, words.PICTURE_FILE) if (folder / name).exists()]
        console.out.print(f"written to {folder}: {', '.join(written)}")
    if not report.is_right:
        problem = f"{config.dataset!r}: {words.verdict(report)}: generate or copy it again"
        print(f"error: {problem}", file=sys.stderr)
        return Outcome(1, {"error": problem, "dataset": config.dataset, **report.to_dict()})
    console.out.print("every circuit is valid and has the right size and label")
    return Outcome(report={"dataset": config.dataset, **report.to_dict()})


def export_genqc(config: ExportConfig) -> Outcome:
    """Export a data set or a model in genQC's format."""
    from quantum_diffusion import console
    from quantum_diffusion.interop.genqc_export import check_export, export_dataset
    from quantum_diffusion.interop.loading import dataset_loader

    path = Path(config.output_path)
    if config.dataset is None:
        return _export_model(str(config.model_dir), path)
    check_export(path, DatasetFormatError)
    dataset = dataset_loader().load_dataset(config.dataset)
    kind = export_dataset(dataset, path)
    console.out.print(
        f"{counted(len(dataset), 'circuit')} written to {path}; open the folder in genQC with "
        f'{kind}.from_config_file("{path / "config.yaml"}", torch.device("cpu"))'
    )
    return Outcome(report={"folder": path, "num_circuits": len(dataset), "class": kind})


def _export_model(model: str, path: Path) -> Outcome:
    from quantum_diffusion import console
    from quantum_diffusion.interop.genqc_export import check_export
    from quantum_diffusion.interop.genqc_pipeline_export import write_pipeline
    from quantum_diffusion.interop.opening import condition_dropout, load_pipeline

    check_export(path, CheckpointError)
    pipeline = load_pipeline(model)
    kind = write_pipeline(pipeline, path, condition_dropout(model))
    console.out.print(
        f"model written to {path}; open the folder in genQC with "
        f'{kind}.from_config_file("{path}/", torch.device("cpu"))'
    )
    return Outcome(report={"folder": path, "num_parameters": pipeline.num_parameters, "class": kind})
