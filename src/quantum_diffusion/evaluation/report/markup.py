"""Safe HTML: every string is escaped unless it is `Markup`, which only this module creates.

Report pages and charts are built only from these functions, so nothing read from a file can become markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


Child = str | Iterable[str] | None
"""The content of an element: text, markup, several of these, or nothing."""

_VOID = {"meta", "br", "hr", "line", "rect", "circle", "path"}
"""Elements without content; those of SVG are self-closing."""

_SVG = {"line", "rect", "circle", "path"}


def escaped(text: str) -> Markup:
    """Return text as HTML; characters not allowed in a page become a replacement character.

    Example:
        >>> escaped("a < b")
        'a &lt; b'
    """
    if isinstance(text, Markup):
        return text
    clean = "".join(c if c in "\n\t" or (c.isprintable() and c < "\U0010fffe") else _stand_in(c) for c in text)
    return Markup(html.escape(clean))


def _stand_in(character: str) -> str:
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


def joined(parts: Iterable[str | None], between: str = "") -> Markup:
    """Join parts, skipping None."""
    return Markup(escaped(between).join(escaped(part) for part in parts if part is not None))


def element(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element.

    Args:
        name: Its tag.
        *children: Its content.
        **attributes: Its attributes. A trailing underscore in a name is dropped, and others become hyphens. True gives
            the bare name; None and False give nothing.

    Example:
        >>> element("a", "<here>", href="#x", class_="far")
        '<a href="#x" class="far">&lt;here&gt;</a>'
    """
    written = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}{'/' if name in _SVG else ''}>")
    content = joined(child if isinstance(child, str) else joined(child) for child in children if child is not None)
    return Markup(f"<{name}{written}>{content}</{name}>")


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{escaped(text)}"'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> Markup:
    """Return a table that scrolls within its box if it is too wide.

    Args:
        caption: Caption above the table.
        head: Column headers.
        rows: Cells of each row; the first is the row header.
        numeric: Indices of the columns to align as numbers.
    """
    columns = ["num" if column in numeric else None for column in range(len(head))]
    top = element(
        "tr", [element("th", name, scope="col", class_=kind) for name, kind in zip(head, columns, strict=True)]
    )
    body = [
        element(
            "tr",
            element("th", first, scope="row", class_="sub" if first.startswith("  ") else None),
            [element("td", cell, class_=kind) for cell, kind in zip(rest, columns[1:], strict=True)],
        )
        for first, *rest in rows
    ]
    whole = element("table", element("caption", caption), element("thead", top), element("tbody", body))
    return scrolling(whole, caption)


def scrolling(content: Markup, name: str) -> Markup:
    """Return a box that scrolls sideways, by keyboard as well."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=name)


def details(summary: str, *content: Child) -> Markup:
    """Return a section that opens when its summary is clicked."""
    return element("details", element("summary", summary), *content)


def section(anchor: str, title: str, *content: Child, level: int = 2) -> Markup:
    """Return a section of the page with a heading and an anchor for links."""
    return element(
        "section", element(f"h{level}", title, id=anchor), *content, aria_labelledby=anchor, class_=f"level{level}"
    )
