"""Writes `spark_types.json` anew, by hand: a Parquet file of Spark for each of its types. It needs pyspark and Java.

`python tests/doors/spark_types.py`, with a Python that has pyspark, which is not among what the tests install. The test
of docs/data_types.md reads the files that it keeps.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path

from pyspark import __version__ as version
from pyspark.sql import SparkSession

KEPT = Path(__file__).with_suffix(".json")
TYPES = (
    *("CAST(1 AS BYTE)", "CAST(1 AS SHORT)", "1", "CAST(1 AS BIGINT)"),
    *("CAST(0.1 AS FLOAT)", "CAST(0.1 AS DOUBLE)", "CAST(1.50 AS DECIMAL(5, 2))", "CAST(1.50 AS DECIMAL(38, 2))"),
    *("'a'", "CAST('a' AS VARCHAR(2))", "CAST('a' AS CHAR(2))", "X'AA'", "true"),
    *("DATE '2020-01-02'", "TIME '01:02:03.5'"),
    *("TIMESTAMP '2020-01-02 03:04:05.000006'", "TIMESTAMP_NTZ '2020-01-02 03:04:05.000006'"),
    *("INTERVAL '1-2' YEAR TO MONTH", "INTERVAL '3 00:00:01.5' DAY TO SECOND", "make_interval(0, 14, 0, 3, 0, 0, 1.5)"),
    *(
        "array(1, NULL)",
        "map('k', 1)",
        "map(1, 'v')",
        "named_struct('a', 1, 'b', array(TIMESTAMP '2020-01-02 03:04:05'))",
    ),
    *("array(named_struct('a', 1))", "parse_json('{\"a\": [1]}')", "NULL"),
)


def main() -> None:
    """Write the file."""
    settings = {
        "spark.master": "local[1]",
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "Europe/Berlin",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    spark = SparkSession.builder.config(map=settings).getOrCreate()
    files: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(TYPES):
            place = Path(folder) / str(number)
            try:
                spark.sql(f"SELECT {kind} AS x").coalesce(1).write.parquet(str(place))
            except Exception as error:  # noqa: BLE001 - Spark has many
                files[kind] = f"refused: {str(error).splitlines()[0]}"
            else:
                (part,) = place.glob("*.parquet")
                files[kind] = base64.b64encode(part.read_bytes()).decode()
    spark.stop()
    KEPT.write_text(json.dumps({"version": version, "files": files}, indent=1) + "\n")


if __name__ == "__main__":
    main()
