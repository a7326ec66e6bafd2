"""Every column type that each library can hold, with a value and what the row of a source then has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

MOMENT = datetime(2020, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001 - columns without a time zone
IN_UTC = MOMENT.replace(tzinfo=UTC)
ISO = "2020-01-02T03:04:05.000006"
BERLIN = "Europe/Berlin"
A_UUID = "6067c50e-6854-4767-9e42-6e4166192af9"

PANDAS: dict[str, tuple[Callable[[], object], list[object]]] = {
    "int": (lambda: pd.Series([1, 2]), [1, 2]),
    "int with a gap": (lambda: pd.Series([1, None]), [1.0, None]),
    "Int64": (lambda: pd.Series([1, None], dtype="Int64"), [1, None]),
    "uint64": (lambda: pd.Series([2**64 - 1], dtype="uint64"), [2**64 - 1]),
    "str": (lambda: pd.Series(["a", None]), ["a", None]),
    "object": (lambda: pd.Series(["a", None], dtype=object), ["a", None]),
    "category": (lambda: pd.Series(["a", None], dtype="category"), ["a", None]),
    "boolean": (lambda: pd.Series([True, None], dtype="boolean"), [True, None]),
    "datetime64[ns]": (lambda: pd.Series([MOMENT]).astype("datetime64[ns]"), [ISO]),
    "datetime64[s]": (lambda: pd.Series([MOMENT]).astype("datetime64[s]"), [ISO[:19]]),
    "zone": (lambda: pd.Series([MOMENT]).dt.tz_localize(BERLIN), [f"{ISO}+01:00"]),
    "UTC": (lambda: pd.Series([IN_UTC]), [f"{ISO}+00:00"]),
    "timedelta": (lambda: pd.Series([timedelta(days=1, microseconds=5)]), [86400.000005]),
    "float16": (lambda: pd.Series([0.5, None], dtype="float16"), [0.5, None]),
    "float32": (lambda: pd.Series([0.1], dtype="float32"), [0.10000000149011612]),
    "decimal": (lambda: pd.Series([Decimal("1.50")]), ["1.50"]),
    "date": (lambda: pd.Series([MOMENT.date()]), ["2020-01-02"]),
    "time": (lambda: pd.Series([MOMENT.time()]), ["03:04:05.000006"]),
    "bytes": (lambda: pd.Series([b"\xaa"]), ["qg=="]),
    "list": (lambda: pd.Series([[1, 2], None]), [[1, 2], None]),
    "array": (lambda: pd.Series([np.array([1.5])]), [[1.5]]),
    "dict": (lambda: pd.Series([{"a": 1}, {"b": 2}]), [{"a": 1, "b": None}, {"a": None, "b": 2}]),
    "UUID": (lambda: pd.Series([UUID(A_UUID)]), [A_UUID]),
    "interval": (lambda: pd.Series(pd.interval_range(0, 1)), [{"left": 0, "right": 1}]),
    "Arrow's map": (
        lambda: pd.Series([[("k", 1)]], dtype=pd.ArrowDtype(pa.map_(pa.string(), pa.int64()))),
        [[["k", 1]]],
    ),
}

POLARS: dict[str, tuple[Callable[[], pl.Series], list[object]]] = {
    "categorical": (lambda: pl.Series(["a", None], dtype=pl.Categorical), ["a", None]),
    "enum": (lambda: pl.Series(["a", None], dtype=pl.Enum(["a"])), ["a", None]),
    "decimal": (lambda: pl.Series([Decimal("1.50")]), ["1.50"]),
    "ms": (lambda: pl.Series([MOMENT], dtype=pl.Datetime("ms")), [ISO[:19]]),
    "ns in UTC": (lambda: pl.Series([MOMENT], dtype=pl.Datetime("ns", "UTC")), [f"{ISO}+00:00"]),
    "zone": (lambda: pl.Series([IN_UTC], dtype=pl.Datetime("us", BERLIN)), ["2020-01-02T04:04:05.000006+01:00"]),
    "duration": (lambda: pl.Series([timedelta(seconds=1.5)]), [1.5]),
    "time": (lambda: pl.Series([MOMENT.time()]), ["03:04:05.000006"]),
    "date": (lambda: pl.Series([MOMENT.date()]), ["2020-01-02"]),
    "binary": (lambda: pl.Series([b"\xaa"]), ["qg=="]),
    "text": (lambda: pl.Series(["longer than twelve bytes", ""]), ["longer than twelve bytes", ""]),
    "list": (lambda: pl.Series([[1, 2], None]), [[1, 2], None]),
    "array": (lambda: pl.Series([[0.5, 2.0]], dtype=pl.Array(pl.Float32, 2)), [[0.5, 2.0]]),
    "struct": (lambda: pl.Series([{"a": 1, "b": [MOMENT]}]), [{"a": 1, "b": [ISO]}]),
    "null": (lambda: pl.Series([None]), [None]),
    "uint64": (lambda: pl.Series([2**64 - 1], dtype=pl.UInt64), [2**64 - 1]),
    "int8": (lambda: pl.Series([-1], dtype=pl.Int8), [-1]),
    "float16": (lambda: pl.Series([0.5], dtype=pl.Float16), [0.5]),
    "float32": (lambda: pl.Series([0.1], dtype=pl.Float32), [0.10000000149011612]),
    "NaN": (lambda: pl.Series([float("nan")]), [None]),
    "bool": (lambda: pl.Series([True, None]), [True, None]),
}

DUCKDB: dict[str, object] = {
    """'{"a":[1]}'::JSON""": {"a": [1]},
    """[NULL, '{"a":1}'::JSON]""": [None, {"a": 1}],
    "{'a': '[1]'::JSON, 'b': MAP {'k': '2'::JSON}, 'c': ['3'::JSON]::JSON[1]}": {"a": [1], "b": [["k", 2]], "c": [3]},
    "1.50::DECIMAL(38, 2)": "1.50",
    "TIMESTAMP_S '2020-01-02 03:04:05'": ISO[:19],
    "TIMESTAMP_MS '2020-01-02 03:04:05.123'": f"{ISO[:19]}.123000",
    "TIMESTAMP_NS '2020-01-02 03:04:05.000006789'": ISO,
    "TIMESTAMP '2020-01-02 03:04:05.000006'": ISO,
    "TIMESTAMPTZ '2020-01-02 03:04:05.000006+00'": f"{ISO}+00:00",
    "{'a': 1, 'b': [TIMESTAMPTZ '2020-01-02 03:04:05.000006+00']}": {"a": 1, "b": [f"{ISO}+00:00"]},
    "TIMESTAMP 'infinity'": None,
    "TIME '01:02:03.5'": "01:02:03.500000",
    "DATE '2020-01-02'": "2020-01-02",
    "INTERVAL '14 months 3 days 1.5 seconds'": "P14M3DT1.5S",
    f"'{A_UUID}'::UUID": A_UUID,
    "'\\xAA'::BLOB": "qg==",
    "'a'::ENUM('a', 'b')": "a",
    "[1, NULL]": [1, None],
    "[0.5, 2]::FLOAT[2]": [0.5, 2.0],
    "MAP {'k': 1}": [["k", 1]],
    "0.1::FLOAT": 0.10000000149011612,
    "18446744073709551615::UBIGINT": 2**64 - 1,
    "1::TINYINT": 1,
    "NULL": None,
}

Feature = datasets.features
DATASETS: dict[str, tuple[object, list[object], list[object]]] = {
    "ClassLabel": (Feature.ClassLabel(names=["a", "b"]), ["b", 0], [1, 0]),
    "List": (Feature.List(Feature.Value("int64")), [[1, 2]], [[1, 2]]),
    "LargeList": (Feature.LargeList(Feature.Value("int64")), [[1, 2]], [[1, 2]]),
    "fixed": (Feature.List(Feature.Value("float32"), length=2), [[0.5, 2.0]], [[0.5, 2.0]]),
    "Array2D": (Feature.Array2D((2, 2), "int64"), [[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]]),
    "Translation": (Feature.Translation(["de", "en"]), [{"de": "x", "en": "y"}], [{"de": "x", "en": "y"}]),
    "Json": (Feature.Json(), [{"a": 1}, [2], None], [{"a": 1}, [2], None]),
    "struct": ({"a": Feature.Value("int32")}, [{"a": 1}], [{"a": 1}]),
    "Image(decode=False)": (
        Feature.Image(decode=False),
        [{"bytes": b"\x89PNG", "path": "a.png"}],
        [{"bytes": "iVBORw==", "path": "a.png"}],
    ),
    "Image": (
        Feature.Image(),
        [{"bytes": b"\x89PNG", "path": "a.png"}],
        [{"bytes": "iVBORw==", "path": "a.png"}],
    ),
    **{
        kind: (Feature.Value(kind), [given], [expected])
        for kind, given, expected in (
            ("timestamp[us]", MOMENT, ISO),
            (f"timestamp[ns, tz={BERLIN}]", IN_UTC, "2020-01-02T04:04:05.000006+01:00"),
            ("decimal128(10, 2)", Decimal("1.50"), "1.50"),
            ("binary", b"\xaa", "qg=="),
            ("float16", 0.5, 0.5),
            ("large_string", "a", "a"),
            ("string_view", "a", "a"),
            ("duration[us]", timedelta(seconds=1.5), 1.5),
            ("time64[us]", MOMENT.time(), "03:04:05.000006"),
            ("date32", MOMENT.date(), "2020-01-02"),
            ("null", None, None),
        )
    },
}

PYARROW: dict[str, tuple[pa.Array, list[object]]] = {
    "string_view": (pa.array(["a", None], pa.string_view()), ["a", None]),
    "large_string": (pa.array(["a"], pa.large_string()), ["a"]),
    "dictionary": (pa.array(["a", None]).dictionary_encode(), ["a", None]),
    "binary_view": (pa.array([b"\xaa"], pa.binary_view()), ["qg=="]),
    "fixed_size_binary": (pa.array([b"\xaa"], pa.binary(1)), ["qg=="]),
    "halffloat": (pa.array([np.float16(0.5)], pa.float16()), [0.5]),
    "decimal32": (pa.array([Decimal("1.50")], pa.decimal32(5, 2)), ["1.50"]),
    "decimal256": (pa.array([Decimal("1.50")], pa.decimal256(60, 2)), ["1.50"]),
    "date64": (pa.array([MOMENT.date()], pa.date64()), ["2020-01-02"]),
    "time32[s]": (pa.array([MOMENT.time()], pa.time32("s")), ["03:04:05"]),
    "time64[ns]": (pa.array([MOMENT.time()], pa.time64("ns")), ["03:04:05.000006"]),
    "timestamp[s]": (pa.array([MOMENT], pa.timestamp("s")), [ISO[:19]]),
    "timestamp[ns]": (pa.array([MOMENT], pa.timestamp("ns")), [ISO]),
    "timestamp[us] with a zone": (pa.array([IN_UTC], pa.timestamp("us", BERLIN)), ["2020-01-02T04:04:05.000006+01:00"]),
    "duration[ns]": (pa.array([timedelta(seconds=1.5)], pa.duration("ns")), [1.5]),
    "list of structs": (pa.array([[{"a": 1}], None]), [[{"a": 1}], None]),
    "large_list": (pa.array([[1, None]], pa.large_list(pa.int8())), [[1, None]]),
    "fixed_size_list": (pa.array([[0.5, 2.0]], pa.list_(pa.float32(), 2)), [[0.5, 2.0]]),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [[["k", 1]]]),
    "uuid": (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID(A_UUID).bytes], pa.binary(16))), [A_UUID]),
    "json": (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":[1]}'])), [{"a": [1]}]),
    "null": (pa.array([None], pa.null()), [None]),
    "list_view": (pa.array([[1, None]], pa.list_view(pa.int64())), [[1, None]]),
    "large_list_view": (pa.array([[1, None]], pa.large_list_view(pa.int64())), [[1, None]]),
    "large_binary": (pa.array([b"\xaa"], pa.large_binary()), ["qg=="]),
    "decimal64": (pa.array([Decimal("1.50")], pa.decimal64(5, 2)), ["1.50"]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())), [True]),
    "fixed_shape_tensor": (
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int64(), (2, 2)), pa.array([[1, 2, 3, 4]], pa.list_(pa.int64(), 4))
        ),
        [[1, 2, 3, 4]],
    ),
}

# What differs between a table in memory and the file that the library writes of it, or cannot be written or read at all
PANDAS_FILES: dict[str, Callable[[], object]] = {
    "Sparse": lambda: pd.Series([1, 0], dtype="Sparse[int]"),
    "complex": lambda: pd.Series([1j]),
    "period": lambda: pd.Series([pd.Period("1970-03", "M")]),
}
POLARS_FILES: dict[str, Callable[[], pl.Series]] = {
    "int128": lambda: pl.Series([2**100], dtype=pl.Int128),
    "uint128": lambda: pl.Series([2**100], dtype=pl.UInt128),
    "object": lambda: pl.Series([object()], dtype=pl.Object),
}
PYARROW_FILES: dict[str, pa.Array] = {
    "month_day_nano_interval": pa.array([pa.MonthDayNano([1, 2, 3])]),
    "run_end_encoded": pa.RunEndEncodedArray.from_arrays([2], [1]),
    "dense_union": pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
}
DUCKDB_FILES = (
    *("1::HUGEINT", "1::UHUGEINT", "TIMETZ '01:02:03+02'", "'0101'::BIT", "1::BIGNUM"),
    *("union_value(n := 2)::UNION(m INTEGER, n INTEGER)", "1::VARIANT", "{'a': [1]}::VARIANT"),
)
