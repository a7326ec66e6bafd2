"""The query of a list request."""

from __future__ import annotations

import pytest

from orchestrator.server.failures import Refused
from orchestrator.server.openai.queries import PageQuery, page_query


def page(**query: str) -> PageQuery:
    return page_query(query, default=20, most=100)


def test_a_list_begins_with_the_newest_and_has_a_default_length() -> None:
    assert page() == page(limit="", after="", order="desc") == PageQuery(20, None, newest_first=True)
    assert page(limit="100", after="batch_1", order="asc") == PageQuery(100, "batch_1", newest_first=False)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"limit": "0"}, "integer_below_min_value"),
        ({"limit": "-1"}, "integer_below_min_value"),
        ({"limit": "101"}, "integer_above_max_value"),
        ({"limit": "ten"}, "invalid_type"),
        ({"limit": "1.5"}, "invalid_type"),
        ({"limit": "\u0661"}, "invalid_type"),
        ({"limit": "9" * 5000}, "invalid_type"),
        ({"order": "up"}, "invalid_value"),
    ],
)
def test_a_value_that_is_not_valid_is_refused_with_openais_code(query: dict[str, str], code: str) -> None:
    with pytest.raises(Refused) as refused:
        page(**query)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, next(iter(query)))
