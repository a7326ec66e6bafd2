"""Requests as JSON: as the ledger stores them, as they are sent, and as they are hashed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import NamedTuple

import orjson

from orchestrator import exact_json
from orchestrator.domain.item import File

# we serialize dataclasses ourselves: a `File` is one, and is not represented by its fields
JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
SORTED = JSON | orjson.OPT_SORT_KEYS  # for hashes: the order of keys makes no difference

_FILE_KEYS = File("", "", "").as_json().keys()


class RequestJson(NamedTuple):  # a tuple, because one is made for each request
    """`stored`: with files by path. `sent`: the same with files by content. `hashed`: `sent`, with its keys sorted."""

    stored: bytes
    sent: bytes
    hashed: bytes


def request_json(request: object) -> RequestJson:
    """Return a request as JSON. Raises `TypeError` if it has no JSON form."""
    stored = sent = stored_request(request)
    if b'"$file"' in stored:
        sent = exact_json.dumps(request, _by_content, JSON)
        _refuse_lookalikes(exact_json.loads(sent))
    return RequestJson(stored, sent, exact_json.dumps(request, _by_content, SORTED) if b"{" in sent else sent)


def _refuse_lookalikes(sent: object) -> None:
    """Raise `TypeError` for an object of the user's data that would be taken for a file, and be read."""
    if isinstance(sent, dict):
        if sent.keys() == _FILE_KEYS:
            raise TypeError(f"an object with the keys {', '.join(sorted(_FILE_KEYS))} stands for a file: rename one")
        sent = list(sent.values())
    if isinstance(sent, list):
        for part in sent:
            _refuse_lookalikes(part)


def stored_request(request: object) -> bytes:
    """Return a request as the ledger stores it. Raises `TypeError` if it has no JSON form."""
    return exact_json.dumps(request, as_stored, JSON)


def as_stored(value: object) -> object:
    """Return a value that JSON does not know as the ledger stores it."""
    return value.as_json() if isinstance(value, File) else as_object(value)


def _by_content(value: object) -> object:
    if isinstance(value, File):
        return {"$file": value.sha256, "content_type": value.content_type}
    return as_object(value)


def as_object(value: object) -> object:
    """Return a dataclass of the job as a dictionary."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    raise TypeError(f"a request cannot contain a {type(value).__name__}")
