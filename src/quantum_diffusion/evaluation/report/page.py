"""Builds the page of a report: one self-contained HTML file about runs, evaluations and data sets.

The command calls `write_report`, which checks, reads, builds and writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import quantum_diffusion
from quantum_diffusion.config.schema import ReportConfig
from quantum_diffusion.errors import ConfigError
from quantum_diffusion.evaluation.report.comparison import comparison_parts
from quantum_diffusion.evaluation.report.dataset_section import dataset_card, dataset_section
from quantum_diffusion.evaluation.report.evaluation_section import evaluation_card, evaluation_section
from quantum_diffusion.evaluation.report.markup import Markup, element, section
from quantum_diffusion.evaluation.report.run_section import run_card, run_section
from quantum_diffusion.evaluation.report.sources import Sources, read_sources
from quantum_diffusion.files import new_file
from quantum_diffusion.folders import check_nothing_lost

GENERATOR = "quantum_diffusion report"
"""Marks a page as ours in its head; pages with this mark may be replaced."""

_STYLE = Path(__file__).with_name("page.css")
_HEAD_BYTES = 4096
_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
        anchor: Its anchor for links.
        title: Its title in the table of contents.
        content: The section.
        card: Its card at the top of the page; None for comparisons.
    """

    anchor: str
    title: str
    content: Markup
    card: Markup | None = None


def write_report(config: ReportConfig, progress: Callable[[int, int], None] | None = None) -> Sources:
    """Read the sources, write the page and return the sources.

    Args:
        config: The sources, and the path of the page.
        progress: Called with (circuits so far, circuits in total) for each data set that is verified.

    Raises:
        ConfigError: The page cannot be written, or would replace something.
        SourceError: A source is missing, damaged or not ours.
        DatasetFormatError, IncompatibleDatasetsError: A data set cannot be read.
    """
    path = Path(config.output_path)
    check_output(path, config.overwrite)
    sources = read_sources(config.sources, config.max_drawings, progress)
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    page = report_page(sources, config.title or _title(config.sources), made)
    with new_file(path, ConfigError) as staging:
        staging.write_text(page, encoding="utf-8")
    return sources


def check_output(path: Path, overwrite: bool) -> None:
    """Raise an error if the path cannot be written, or if writing would replace something other than a report.

    Raises:
        ConfigError: The message says why.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"report.output_path is {str(path)!r}: give the name of a file that ends in .html")
    is_report = _is_report(path)
    if is_report and not overwrite:
        raise ConfigError(
            f"{str(path)!r} is an earlier report: set report.overwrite=true to replace it, or give another "
            "report.output_path"
        )
    check_nothing_lost(
        path,
        ConfigError,
        "is there and is no report of ours, so it is not replaced: give another report.output_path",
        is_ours=lambda name: is_report,
        written=path.parent / ".new",  # an entry in it, since the folder may already exist
    )


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f'content="{GENERATOR}'.encode() in file.read(_HEAD_BYTES)
    except OSError:  # missing, a folder, or not readable
        return False


def _title(names: Sequence[str]) -> str:
    return "Report: " + (", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more")


# ------------------------------------------------------------------------------------------------- building


def report_page(sources: Sources, title: str, made: str) -> str:
    """Return the page as HTML.

    Args:
        sources: The sources to report on.
        title: The title of the page.
        made: When it was made, in words.
    """
    groups = _groups(sources)
    compared = [Part(*part) for part in comparison_parts(sources)]
    cards = [part.card for _, _, parts in groups for part in parts if part.card is not None]
    body = [
        section("overview", "At a glance", element("ul", cards, class_="cards")),
        *(part.content for part in compared),
        *(section(anchor, name, *(part.content for part in parts)) for anchor, name, parts in groups),
    ]
    version = f"{GENERATOR} {quantum_diffusion.__version__}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=version),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(_STYLE.read_text(encoding="utf-8"))),
    )
    top = element("header", element("h1", title), element("p", f"{sources.in_words}. Made {made}."))
    about = element("footer", f"Made by {version}. Circuits are verified by simulation; qubit order as in Qiskit.")
    page = element("div", top, _contents(compared, groups), element("main", body), about, class_="page")
    return f"<!DOCTYPE html>\n{element('html', head, element('body', page), lang='en')}\n"


def _groups(sources: Sources) -> list[tuple[str, str, list[Part]]]:
    """Return (anchor, title, parts) for each kind of source that is present."""
    evaluations = [
        Part(anchor, one.name, evaluation_section(one, anchor), evaluation_card(one, anchor))
        for k, one in enumerate(sources.evaluations, start=1)
        for anchor in (f"evaluation-{k}",)
    ]
    runs = [
        Part(anchor, one.name, run_section(one, anchor), run_card(one, anchor))
        for k, one in enumerate(sources.runs, start=1)
        for anchor in (f"run-{k}",)
    ]
    datasets = [
        Part(anchor, one.name, dataset_section(one, anchor), dataset_card(one, anchor))
        for k, one in enumerate(sources.datasets, start=1)
        for anchor in (f"dataset-{k}",)
    ]
    kinds = [
        ("evaluations", "Evaluations", evaluations),
        ("runs", "Training", runs),
        ("datasets", "Data sets", datasets),
    ]
    return [kind for kind in kinds if kind[2]]


def _contents(compared: Sequence[Part], groups: Sequence[tuple[str, str, list[Part]]]) -> Markup:
    def link(anchor: str, name: str, *below: Markup) -> Markup:
        return element("li", element("a", name, href=f"#{anchor}"), *below)

    entries = [link("overview", "At a glance"), *(link(part.anchor, part.title) for part in compared)]
    entries += [
        link(anchor, name, element("ul", [link(part.anchor, part.title) for part in parts]))
        for anchor, name, parts in groups
    ]
    return element("nav", element("ul", entries), aria_label="Contents")
