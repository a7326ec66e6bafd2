"""The number format in which vectors are computed."""

from __future__ import annotations

import pytest

from orchestrator.domain.vector_dtype import AUTO, BFLOAT16, CHOSEN, auto_dtype, chosen_before

ZEN4 = ["fpu", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni"]
SAPPHIRE_RAPIDS = [*ZEN4, "amx_bf16", "amx_tile", "amx_int8"]


@pytest.mark.parametrize(
    ("task", "flags", "dtype"),
    [
        ("feature-extraction", SAPPHIRE_RAPIDS, BFLOAT16),
        ("feature-extraction", ZEN4, AUTO),
        ("feature-extraction", ["amx_int8", "amx_tile"], AUTO),
        ("feature-extraction", [], AUTO),
        ("text-classification", SAPPHIRE_RAPIDS, AUTO),
        ("text-generation", SAPPHIRE_RAPIDS, AUTO),
        (None, SAPPHIRE_RAPIDS, AUTO),
    ],
)
def test_only_vectors_and_only_on_a_cpu_with_amx_are_computed_in_bfloat16(
    task: str | None, flags: list[str], dtype: str
) -> None:
    assert auto_dtype(task, flags) == dtype


def test_the_latest_run_with_the_same_settings_says_what_was_chosen() -> None:
    identity = {"dtype": "auto", "parameters": {"a": 1}}
    other = {"dtype": "auto", "parameters": {"a": 2}}
    assert chosen_before(identity, []) is None
    assert chosen_before(identity, [other | {CHOSEN: BFLOAT16}]) is None
    assert chosen_before(identity, [other | {CHOSEN: BFLOAT16}, identity]) == AUTO
    assert chosen_before(identity | {CHOSEN: BFLOAT16}, [other, identity]) == AUTO
    assert chosen_before(identity, [identity | {CHOSEN: BFLOAT16}, identity]) == BFLOAT16
    assert chosen_before(identity, [{**identity, "dtype": BFLOAT16}]) is None  # the user chose that
