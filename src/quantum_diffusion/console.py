"""Terminal output of the commands: progress bars and summary tables, drawn with rich.

Library code never prints; only this module, `cli` and the commands do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from quantum_diffusion.errors import counted, only_warn
from quantum_diffusion.pipeline.callbacks import EpochRecord, FitObserver, StepRecord

if TYPE_CHECKING:  # each command loads what it needs: torch takes seconds
    from quantum_diffusion.circuits.circuit import Circuit
    from quantum_diffusion.config.schema import DatasetConfig
    from quantum_diffusion.data.generation import GenerationReport
    from quantum_diffusion.search.found import CompiledCircuit

Advance = Callable[[int, int], None]
"""Called with (done, total)."""

out = Console(highlight=False, markup=False, soft_wrap=True)
if not (out.is_terminal and out.width):  # a file has no width, and rich would print nothing with COLUMNS=0
    out.width = 120


@contextmanager
def progress_bar(title: str, visible: bool) -> Iterator[Advance | None]:
    """Show a progress bar; yields the function that moves it, or None if it is not visible."""
    if not visible:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task(title, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance


class TrainingBar(FitObserver):
    """A progress bar with loss, samples per second and time left, and one line per epoch."""

    def __init__(self) -> None:
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._rate = 0.0

    def on_start(self, step: int, total_steps: int) -> None:
        """Show the bar."""
        if step:
            out.print(f"resuming at step {step} of {total_steps}")
        self._progress.start()
        self._task = self._progress.add_task("training", total=total_steps, completed=step, state="")

    def on_step(self, record: StepRecord) -> None:
        """Move the bar."""
        self._rate = record.samples_per_second
        state = f"loss {record.loss:.4f}  {record.samples_per_second:,.0f} samples/s"
        self._progress.update(self._task, completed=record.step, state=state)

    def on_epoch(self, record: EpochRecord) -> None:
        """Print the epoch's line."""
        validation = "" if record.validation_loss is None else f"  validation {record.validation_loss:.4f}"
        self._progress.console.print(
            f"epoch {record.epoch + 1:3d}  step {record.step:6d}  loss {record.training_loss:.4f}{validation}"
            f"  {self._rate:,.0f} samples/s  {record.seconds:.0f} s"
        )

    def on_end(self, status: str) -> None:
        """Remove the bar."""
        self._progress.stop()


def shown(value: object) -> str:
    """Format a value for a table: thousands separators, floats with six digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@only_warn("a table")
def show_table(title: str, rows: Sequence[Sequence[str]], footer: str = "") -> None:
    """Print rows of (name, value, meaning) or (name, value)."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table.add_column(style="bold", no_wrap=True, min_width=widths[0])
    if len(widths) == 3:
        table.add_column(justify="right", no_wrap=True, min_width=widths[1])
        table.add_column(style="dim", min_width=min(widths[2], _NARROWEST))
    else:
        table.add_column(overflow="fold", min_width=min(widths[1], _NARROWEST))
    for row in rows:
        table.add_row(*row)
    _print_table(table)
    if footer:
        out.print(footer)


def _print_table(table: Table) -> None:
    """Print a table, wider than a narrow terminal if need be: rich would cut off names and digits."""
    needed = Measurement.get(out, out.options.update_width(_ANY), table).minimum
    table.width = needed if needed > out.width else None
    out.print()
    out.print(table)


_NARROWEST = 20
"""Minimum width of a column that may wrap, in characters."""
_ANY = 1000


@only_warn("the summary")
def show_generation(report: GenerationReport, config: DatasetConfig) -> None:
    """Print a summary of a generation run, with a note if it made fewer circuits than requested."""
    distinct = "with distinct gate sequences (inspect also counts circuits that become equal once simplified)"
    rows = [("circuits", f"{report.num_circuits:,} {distinct}")]
    if report.num_balanced_away:
        rows.append(
            (
                "balanced",
                f"{counted(report.num_balanced_away, 'circuit')} left out by datasets.balance_quantile",
            )
        )
    if not report.reused:
        rate = report.num_circuits / max(report.seconds, 1e-9)
        rows.append(
            ("made in", f"{report.seconds:.1f} s ({rate:,.0f} a second, {counted(report.num_candidates, 'candidate')})")
        )
    if report.num_continued:
        rows.append(("resumed", f"{report.num_continued:,} of the candidates come from an earlier, interrupted run"))
    counts = sorted(report.prompt_counts.values())
    each = [f"{prompt}: {count:,}" for prompt, count in report.prompt_counts.items()]
    # One per line: a table cell wraps at any space, even inside a prompt.
    rows.append(
        ("prompts", "\n".join(each) if len(each) <= 8 else f"{len(each)}, {counts[0]:,} to {counts[-1]:,} each")
    )
    title = "Data set (exists already, kept)" if report.reused else "Data set"
    show_table(title, rows, f"folder    {config.output_path}")  # below the table: a cell would wrap a long path
    if report.exhausted:
        found = report.num_circuits + report.num_balanced_away
        mend = "raise datasets.max_gates, or allow more gates or connections"
        if report.longest is not None and report.longest < config.max_gates:
            most = counted(report.longest, "gate")
            mend = f"allow more gates, connections or qubits (simplified, none has more than {most})"
        if config.balance_max is not None and (counts[-1] >= config.balance_max or report.num_balanced_away):
            mend = "raise datasets.balance_max"
        out.print(
            f"note: {report.num_requested:,} circuits were requested, but these settings give only {found:,} distinct "
            f"ones: for more, {mend}"
        )


def show_circuits(circuits: Sequence[Circuit]) -> None:
    """Print circuits as text drawings, wrapped at the width of a terminal."""
    from quantum_diffusion.circuits.backends.qiskit import QiskitBackend

    for number, circuit in enumerate(circuits, start=1):
        out.print(f"\ncircuit {number}: {counted(len(circuit), 'gate')}")
        with only_warn("its drawing"):
            out.print(QiskitBackend().draw_text(circuit, out.width if out.is_terminal else None))


@only_warn("the table of circuits")
def show_compilation(compiled: Sequence[CompiledCircuit]) -> None:
    """Print a table of circuits with their gate counts and infidelities, and their drawings."""
    from quantum_diffusion.search.found import MODEL
    from quantum_diffusion.search.results import in_table

    table = Table(title="Circuits", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("circuit", justify="right", no_wrap=True)
    table.add_column("gates", justify="right", no_wrap=True)
    table.add_column("of each kind", overflow="fold", min_width=_NARROWEST)
    for name in compiled[0].figures if compiled else ():
        table.add_column(name, justify="right", no_wrap=True)
    has_sources = any(one.source != MODEL for one in compiled)
    if has_sources:
        table.add_column("written by", no_wrap=True)
    for number, one in enumerate(compiled, start=1):
        kinds = ", ".join(f"{count} {gate}" for gate, count in one.circuit.gate_counts.items())
        figures = [in_table(*figure) for figure in one.figures.items()]
        source = [one.source] if has_sources else []
        table.add_row(str(number), str(len(one.circuit)), kinds or "none", *figures, *source)
    _print_table(table)
    show_circuits([one.circuit for one in compiled])
