"""Shared parts of a page's sections: cards, rows of charts, and settings with the command that reproduces them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quantum_diffusion.evaluation.report.markup import Child, Markup, details, element, table
from quantum_diffusion.evaluation.report.settings import changed_settings, command_line, typed
from quantum_diffusion.files import yaml_text


def grid(figures: list[Markup | None]) -> Markup | None:
    """Return charts side by side, as many per row as fit; None if there are no charts."""
    shown = [figure for figure in figures if figure is not None]
    return element("div", shown, class_="grid") if shown else None


def settings_parts(
    section_name: str, command: str, values: Mapping[str, Any] | None, left_out: tuple[str, ...] = ()
) -> list[Markup]:
    """Return the changed settings, the whole configuration, and the command that reproduces it."""
    if not values:
        return [element("p", "The settings are not recorded.")]
    changed = changed_settings(section_name, values)
    rows = [(one.key, typed(one.value), one.default) for one in changed]
    command_text = command_line(command, changed, left_out)
    return [
        table("Settings that differ from the defaults", ["key", "value", "default"], rows),
        details("The whole configuration", element("pre", yaml_text(values), tabindex=0)),
        element("p", "The command to reproduce it:"),
        element("pre", element("code", command_text), class_="command", tabindex=0),
    ]


def shown(value: Any) -> str:
    """Format a value for readers: integers with commas, other numbers with four digits, times without seconds.

    Example:
        >>> shown(12345), shown(1.2934567), shown("2026-01-02T03:04:05Z")
        ('12,345', '1.293', '2026-01-02 03:04 UTC')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ$", r"\1 \2 UTC", str(value))


def card(value: str, name: str, *notes: Child, anchor: str) -> Markup:
    """Return a prominent figure that links to its section of the page."""
    link = element("a", name, href=f"#{anchor}")
    return element("li", element("span", value, class_="figure"), link, [element("small", note) for note in notes])
