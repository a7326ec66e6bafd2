from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.json_values import shortest


def in_32_bits(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


@pytest.mark.parametrize("value", [0.1, 1.0, -0.0, 1e-45, 3.4028235e38, 16777216.0, 0.33333334, math.inf])
def test_a_32_bit_float_is_as_short_as_possible(value: float) -> None:
    assert str(shortest(in_32_bits(value))) == str(value)


@given(st.floats(width=32, allow_nan=False))
def test_the_short_form_reads_back_as_the_same_32_bits(value: float) -> None:
    short = shortest(value)
    assert isinstance(short, float)
    assert in_32_bits(short) == value
    assert len(repr(short)) <= len(repr(value))


def test_lists_are_traversed_and_other_values_are_unchanged() -> None:
    assert shortest([in_32_bits(0.1), None, "0.1", [7]]) == [0.1, None, "0.1", [7]]
