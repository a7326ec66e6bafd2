from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from orchestrator.domain.secrets import Secrets, usable_headers

TOKEN = "hf_s3cr/t+T0ken=="


@pytest.mark.parametrize(
    "written",
    [
        TOKEN,
        f"Bearer {TOKEN}",
        quote(TOKEN, safe=""),
        json.dumps(TOKEN),
        TOKEN.replace("/", "\\/"),
        base64.b64encode(TOKEN.encode()).decode(),
        TOKEN[:10],
        TOKEN[5:],
    ],
)
def test_a_secret_is_hidden_however_it_is_written_or_cut(written: str) -> None:
    hidden = Secrets.within({"Authorization": f"Bearer {TOKEN}"}).hidden_in(f"you sent {written}, which is wrong")
    assert written.strip('"')[:8] not in hidden
    assert hidden.startswith("you sent ")
    assert hidden.endswith(", which is wrong")
    assert "***" in hidden


@pytest.mark.parametrize(
    ("headers", "query", "secret"),
    [
        ({"X-Api-Key": "k3y1"}, {}, "k3y1"),
        ({"Authorization": "Basic " + base64.b64encode(b"me:pa55word").decode()}, {}, "pa55word"),
        ({"Cookie": "lang=de; session=0123456789abcdef"}, {}, "0123456789abcdef"),
        ({"X-Team": "a-team-nobody-knows"}, {}, "a-team-nobody-knows"),
        ({}, {"code": "AzureFunctionsKey"}, "AzureFunctionsKey"),
    ],
)
def test_headers_and_queries_hold_secrets(headers: dict[str, str], query: dict[str, str], secret: str) -> None:
    assert Secrets.within(headers, query.items()).hidden_in(f"<{secret}>") == "<***>"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Debug": "true"},
        {"X-Api-Key": "a"},
        {"Accept": "application/json"},
        {"User-Agent": "application/json"},
        {"api-version": "2024-02-01"},
        {"Authorization": ""},
    ],
)
def test_other_values_are_not_hidden(headers: dict[str, str]) -> None:
    said = "true: application/json of 2024-02-01 is a bad request"
    assert Secrets.within(headers).hidden_in(said) == said


def test_secrets_are_not_in_their_own_repr() -> None:
    assert TOKEN not in repr(Secrets.of([TOKEN]))


def test_a_secret_in_another_letter_case_is_hidden_completely() -> None:
    secrets = Secrets.of(["hf_AbCdEfGhIjKlMnOp"])
    for said in ("HF_ABCDEFGHIJKLMNOP", "hf_abcdefghijklmnop", "Hf_abcdEFGHIJklMNOP"):
        assert secrets.hidden_in(f"\u0130 who is {said}?") == "\u0130 who is ***?"


def test_whitespace_around_a_value_is_removed() -> None:
    assert usable_headers({"X-Api-Key": " abc\r\n", "x-none": ""}) == {"X-Api-Key": "abc", "x-none": ""}


@pytest.mark.parametrize(
    "headers",
    [{"X-Key": "hunter22\nX-Other: 1"}, {"X-Key": "hunter22\0"}, {"X-Key": "hunter22\ud800"}, {"X-Key": 22}]
    + [{name: "hunter22"} for name in ("", "X Key", "X-Key:", "X-K\u00e9y", "X-Key\n")],
)
def test_a_header_that_cannot_be_sent_is_named_but_its_value_is_not_shown(headers: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"^headers") as raised:
        usable_headers(headers)
    assert "hunter22" not in str(raised.value)
