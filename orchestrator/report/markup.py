"""HTML and SVG markup, in which all other text is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from orchestrator.domain.phrases import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID = {"meta", "br", "link", "input", "img"}


class Markup(str):
    """Text that is already markup. Only `tag`, `joined` and literals of this program create it."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """Return one element. Attributes, and children that are not markup, are escaped.

    Attributes that are None are omitted. `class_` is `class`, `font_size` is `font-size`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    if name in {"rect", "line", "path", "circle"} and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def scrolling(label: str, *children: str) -> Markup:
    """Return what scrolls sideways if it is too wide, also by keyboard. `label`: what a screen reader calls it."""
    return tag("div", *children, class_="scroll", tabindex="0", role="region", aria_label=label)


def joined(*children: str) -> Markup:
    """Return the parts one after the other. Those that are not markup are escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(_showable(child)) for child in children))


def listed(parts: Iterable[str]) -> Markup:
    """Return the parts with commas between them."""
    return joined(*(joined(", " if number else "", part) for number, part in enumerate(parts)))


def _plain(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else _showable(str(value))


def _showable(text: str) -> str:
    """Make characters visible that HTML does not allow, or that reverse text: answers of a model may contain them."""
    lines = ("".join(one if one.isprintable() else "�" for one in visible(line)) for line in text.split("\n"))
    return "\n".join(lines)
