#!/usr/bin/env bash
# pyarrow: an exception inside `with` completes the upload to S3, so a part of the data appears as a whole object
#
# Guess, written down before: a block that fails aborts the upload, since an object store shows an object only once it is complete.
# Seen: the stream's __exit__ closes it like a block that has ended well, which completes the upload, and the stream has no abort().
# The object has what was written so far, in place of an earlier one if there was one. pyarrow.parquet.ParquetWriter does the same and
# adds a footer: a valid file, of which no reader can tell that the rest of the rows is missing.
# Versions: pyarrow 26.0.1, moto 5.2.5, boto3 1.44.8, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyarrow==26.0.1 'moto[s3]==5.2.5' flask==3.1.3 flask-cors==6.0.5 boto3==1.44.8
cat > try.py <<'PY'
import logging
import os
from contextlib import redirect_stdout, suppress
from io import StringIO

import boto3
import pyarrow
import pyarrow.parquet as parquet
from moto.server import ThreadedMotoServer
from pyarrow.fs import S3FileSystem

os.environ |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true"}
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
with redirect_stdout(StringIO()):
    server.start()
host, port = server.get_host_and_port()
client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
client.create_bucket(Bucket="answers")
client.put_object(Bucket="answers", Key="out.csv", Body=b"row\n" * 1000)
s3 = S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", region="us-east-1")


def batches():
    yield pyarrow.record_batch({"id": [1, 2]})
    raise ConnectionError("the database has gone away")


with suppress(ConnectionError), s3.open_output_stream("answers/out.csv") as stream:
    stream.write(b"row\n")
    raise ConnectionError("the database has gone away")
print("csv", client.head_object(Bucket="answers", Key="out.csv")["ContentLength"], "bytes")

schema = pyarrow.schema({"id": pyarrow.int64()})
with suppress(ConnectionError), parquet.ParquetWriter("answers/out.parquet", schema, filesystem=s3) as writer:
    for batch in batches():
        writer.write_batch(batch)
print("parquet", parquet.read_table("answers/out.parquet", filesystem=s3).to_pydict())
print("abort()", hasattr(stream, "abort"))
server.stop()
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
csv 4 bytes
parquet {'id': [1, 2]}
abort() False
SEEN
echo "as described"
