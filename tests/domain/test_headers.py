from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain.headers import usable_headers


def test_white_space_around_a_value_is_no_part_of_it() -> None:
    assert usable_headers({"X-Api-Key": " abc\r\n", "x-none": ""}) == {"X-Api-Key": "abc", "x-none": ""}


@pytest.mark.parametrize(
    "headers",
    [{"X-Key": "hunter22\nX-Other: 1"}, {"X-Key": "hunter22\0"}, {"X-Key": "hunter22\ud800"}, {"X-Key": 22}]
    + [{name: "hunter22"} for name in ("", "X Key", "X-Key:", "X-K\u00e9y", "X-Key\n")],
)
def test_what_cannot_be_sent_is_named_and_not_shown(headers: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"^headers") as raised:
        usable_headers(headers)
    assert "hunter22" not in str(raised.value)
