"""One HTML file for the user to keep: it loads nothing, and escapes all text that is not written here."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from orchestrator.report.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # keeps browsers from loading anything
_BRAND = " · orchestrator"


def document(title: str, sub: str, parts: Sequence[str]) -> str:
    """Return the whole document. `sub`: the line below the title."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"{title}{_BRAND}"),
        tag("style", Markup(files("orchestrator.report").joinpath("page.css").read_text(encoding="utf-8"))),
    )
    header = tag("header", tag("h1", title), tag("p", sub, class_="sub"))
    body = tag("body", tag("main", header, *parts))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def is_page(path: Path) -> bool:
    """Whether a file is such a document, or empty."""
    with path.open("rb") as file:
        head = file.read(4096)
    return not head or f"{_BRAND}</title>".encode() in head
