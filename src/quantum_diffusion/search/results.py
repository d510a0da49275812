"""Presents the result of a search as a table: printed, in a notebook, or as a pandas data frame.

All searches return such a table. It is a sequence of circuits: `result[0]` is the cheapest one.
"""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from quantum_diffusion.circuits.circuit import Circuit
from quantum_diffusion.circuits.costs import depth, two_qubit_gates
from quantum_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_DRAWN = 12
"""Maximum number of circuits drawn below a table."""


_DIGITS = {"energy": 10}
"""Significant digits of figures, if not two."""


class CircuitTable(Sequence[Circuit]):
    """The circuits found by a search, cheapest first, each with its figures."""

    @property
    @abstractmethod
    def found(self) -> Sequence[Circuit]:
        """The circuits."""

    @abstractmethod
    def figures(self, row: int) -> Mapping[str, Any]:
        """Return further properties of a circuit, as plain values by column name."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """The result in one line."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each circuit: gates, depth, figures and OpenQASM 2 text."""
        return [
            {
                "gates": len(circuit),
                "two_qubit_gates": two_qubit_gates(circuit),
                "depth": depth(circuit),
                **self.figures(row),
                "qasm": circuit.to_qasm2(),
            }
            for row, circuit in enumerate(self.found)
        ]

    def to_pandas(self) -> DataFrame:
        """Return the rows as a pandas `DataFrame`, with the circuits themselves in the column `circuit`.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigError("to_pandas needs pandas, which is not installed: run pip install pandas") from None
        return pandas.DataFrame([{"circuit": circuit, **row} for circuit, row in zip(self, self.rows(), strict=True)])

    # ------------------------------------------------------------------------------------------- a sequence

    def __len__(self) -> int:
        return len(self.found)

    @overload
    def __getitem__(self, place: int) -> Circuit: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Circuit]: ...

    def __getitem__(self, place: int | slice) -> Circuit | Sequence[Circuit]:
        return self.found[place]

    # ---------------------------------------------------------------------------------------------- display

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary}>"

    def __str__(self) -> str:
        lines = [self.summary]
        if len(self):
            cells = self._cells()
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines += ["", *("  ".join(map(str.rjust, row, widths)) for row in cells)]
        for number, circuit in enumerate(self[:MOST_DRAWN], start=1):
            lines += ["", f"circuit {number}:", circuit.draw()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return summary, table and drawings for notebooks."""
        parts = [f"<p>{html.escape(self.summary)}</p>"]
        if len(self):
            head, *body = (
                "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
                for row, tag in zip(self._cells(), ["th", *["td"] * len(self)], strict=True)
            )
            parts.append(f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>")
        parts += [circuit._repr_html_() for circuit in self[:MOST_DRAWN]]
        return "\n".join(parts)

    def _cells(self) -> list[list[str]]:
        """Return the table as texts, header first, without the programs, which are drawn below."""
        rows = [{key: value for key, value in row.items() if key != "qasm"} for row in self.rows()]
        head = ["circuit", *(key.replace("_", " ") for key in rows[0])]
        body = [[str(number), *map(in_table, row, row.values())] for number, row in enumerate(rows, start=1)]
        return [head, *body]


def in_table(name: str, value: object) -> str:
    """Return a figure as the cell of a table."""
    return (
        f"{value:.{_DIGITS.get(name, 2)}g}"
        if isinstance(value, float)
        else "yes"
        if value is True
        else "no"
        if value is False
        else str(value)
    )
