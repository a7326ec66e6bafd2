"""The bodies of requests: what is wrong with one is said in OpenAI's words and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.server.failures import Refused
from orchestrator.server.openai.bodies import CreateBatch, CreateFile, ExpiresAfter, checked, form_body

if TYPE_CHECKING:
    from collections.abc import Mapping

BATCH = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
DAY = {"anchor": "created_at", "seconds": 86400}


def test_a_batch_may_have_metadata_and_say_when_its_output_expires() -> None:
    body = checked({**BATCH, "metadata": {"job": "night"}, "output_expires_after": DAY}, CreateBatch)
    assert body.metadata == {"job": "night"}
    assert body.output_expires_after == ExpiresAfter(anchor="created_at", seconds=86400)
    assert checked({**BATCH, "metadata": None}, CreateBatch).metadata is None


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"endpoint": None}, "invalid_type", "endpoint"),
        ({"extra": 1}, "unknown_parameter", "extra"),
        ({"metadata": ["a"]}, "invalid_type", "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "string_above_max_length", "metadata." + "k" * 65),
        ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata.k"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "object_above_max_properties", "metadata"),
        ({"output_expires_after": {**DAY, "anchor": "now"}}, "invalid_value", "output_expires_after.anchor"),
        ({"output_expires_after": {**DAY, "seconds": 3599}}, "integer_below_min_value", "output_expires_after.seconds"),
        ({"output_expires_after": {**DAY, "seconds": 1e9}}, "invalid_type", "output_expires_after.seconds"),
        (
            {"output_expires_after": {**DAY, "seconds": 2592001}},
            "integer_above_max_value",
            "output_expires_after.seconds",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_openais_code(change: Mapping[str, object], code: str, param: str) -> None:
    with pytest.raises(Refused) as refused:
        checked({**BATCH, **change}, CreateBatch)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, param)


def test_the_message_about_metadata_that_is_not_a_string_is_openais() -> None:
    with pytest.raises(
        Refused, match=r"^Invalid type for 'metadata.tags': expected a string, but got an array instead"
    ):
        checked({**BATCH, "metadata": {"tags": ["a"]}}, CreateBatch)


def test_bracketed_fields_of_a_form_are_an_object() -> None:
    fields = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    assert form_body(fields, CreateFile) == CreateFile(
        purpose="batch", expires_after=ExpiresAfter(anchor="created_at", seconds=3600)
    )


@pytest.mark.parametrize("seconds", ["-5", "soon", "9" * 5000, ""])
def test_a_field_that_is_no_number_is_refused(seconds: str) -> None:
    fields = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
    with pytest.raises(Refused, match=r"expires_after\.seconds"):
        form_body(fields, CreateFile)
