"""Markup: HTML and SVG in which everything that is not markup is escaped."""

from __future__ import annotations

from html import escape

from orchestrator.domain.phrases import visible


class Markup(str):
    """Text that is markup already. Only `tag` makes it, and what is written in this program."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """One element. Children that are not markup are escaped, and so are attributes; those that are None are left out.

    `class_` is `class`, `font_size` is `font-size`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in {"meta", "br", "rect", "line", "path", "circle"} and not children:
        return Markup(f"<{name}{written}>" if name in {"meta", "br"} else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: str) -> Markup:
    """One after the other, escaped where they are not markup."""
    return Markup("".join(child if isinstance(child, Markup) else escape(_showable(child)) for child in children))


def _plain(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else _showable(str(value))


def _showable(text: str) -> str:
    """What a model or a server said may hold characters that no HTML may hold, or that turn the line around."""
    lines = ("".join(one if one.isprintable() else "�" for one in visible(line)) for line in text.split("\n"))
    return "\n".join(lines)
