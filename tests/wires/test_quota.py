from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from orchestrator.domain.batching import Limits
from orchestrator.wires.info import limits_from
from orchestrator.wires.quota import used_up_for

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "6m0s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7"}, 7.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0"}, 0.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api";r=3;t=55'}, 0.0),
        ({"RateLimit": '"api";t=20;r=0'}, 20.0),
        ({"RateLimit": '"burst";r=5;t=1, "day";q=100;t=20;r=0'}, 20.0),
        ({"RateLimit": '"burst";r=0;t=5, "day";r=0;t=20'}, 20.0),
        ({"RateLimit": '"a, \\";r=0;t=9";r=3;t=5'}, 0.0),
        ({"RateLimit": "default ; r=0 ; t=7;pk=:QUFB:"}, 7.0),
        ({"RateLimit": '"api";r=0'}, 0.0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30.0),
        (CIMultiDict([("RateLimit", '"a";r=1;t=5'), ("ratelimit", '"b";r=0;t=8')]), 8.0),
    ],
)
def test_an_exhausted_quota_is_read(headers: Mapping[str, str], seconds: float) -> None:
    assert used_up_for(headers) == pytest.approx(seconds)


@given(text=st.text())
def test_no_header_value_raises(text: str) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text, "RateLimit": text}
    assert used_up_for(headers) >= 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"model_id":"m","max_client_batch_size":32,"max_batch_tokens":4096}', Limits(32, 4096)),
        (b'{"max_client_batch_size":512,"max_batch_tokens":65536}', Limits(256, 16384)),
        (b'{"max_client_batch_size":null,"max_batch_tokens":"many"}', Limits(256, 16384)),
        (b'{"max_client_batch_size":0,"max_batch_tokens":true}', Limits(256, 16384)),
        (b"<html>", Limits(256, 16384)),
        (b"[]", Limits(256, 16384)),
    ],
)
def test_a_server_announces_its_limit_per_request(content: bytes, expected: Limits) -> None:
    assert limits_from(content, Limits(256, 16384)) == expected
