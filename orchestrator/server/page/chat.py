"""A conversation as HTML: turns with their roles, pictures, tool calls. All of it comes from outside and is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import orjson

from orchestrator import exact_json
from orchestrator.domain.conversation import Other, Picture, Text, ToolCall
from orchestrator.domain.phrases import megabytes
from orchestrator.report.markup import Markup, joined, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.conversation import Part, Turn

_LONG = 3000  # characters of a text that scrolls by itself
_LONGEST = 100_000  # characters of one text: a browser still scrolls through it at ease
_LARGEST = 8_000_000  # characters of a picture inside the page
_ROLES = {"user", "assistant", "system", "developer", "tool"}


def chat(turns: Sequence[Turn]) -> Markup:
    """Return the turns, one below the other."""
    return tag("ol", *(_turn(turn) for turn in turns), class_="chat")


def _turn(turn: Turn) -> Markup:
    role = turn.role if turn.role in _ROLES else "other"
    note = tag("span", turn.note, class_="soft") if turn.note else Markup("")
    parts = [_part(part) for part in turn.parts] or [tag("p", "nothing", class_="empty")]
    return tag("li", tag("p", tag("b", turn.role), " ", note, class_="role"), *parts, class_=f"turn {role}")


def _part(part: Part) -> Markup:
    match part:
        case Text(text):
            if len(text) <= _LONG:
                return tag("p", text, class_="said")
            return tag("p", shortened(text), class_="said long", tabindex="0")
        case Picture(url):
            if len(url) > _LARGEST:
                return tag("p", f"a picture of {megabytes(len(url))}, which is too large to show here", class_="soft")
            return tag("img", src=url, alt="picture in the request", loading="lazy", class_="picture")
        case ToolCall(name, arguments):
            return tag("div", tag("p", "calls ", tag("code", name)), json_block(_loaded(arguments)), class_="call")
        case Other(value):
            return json_block(value)
        case _:
            assert_never(part)


def json_block(value: object) -> Markup:
    """Return a value as indented JSON; a text as it is."""
    text = value if isinstance(value, str) else exact_json.dumps(value, str, orjson.OPT_INDENT_2).decode()
    return tag("pre", shortened(text), tabindex="0")


def folded(title: str, *parts: str) -> Markup:
    """Return what is shown when its title is clicked."""
    return tag("details", tag("summary", title), joined(*parts))


def shortened(text: str) -> str:
    """Return a text that a browser can show."""
    rest = len(text) - _LONGEST
    return text if rest <= 0 else f"{text[:_LONGEST]} … and {rest:,} more characters, which the command line shows"


def _loaded(arguments: str) -> object:
    """Return the arguments of a call as a value, or as they are if they are no JSON."""
    try:
        return exact_json.loads(arguments)
    except ValueError:
        return arguments
