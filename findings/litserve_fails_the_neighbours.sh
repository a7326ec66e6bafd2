#!/usr/bin/env bash
# LitServe: a good request is answered 500 because another client's bad one came in the same moment
#
# Guess, written down only afterwards: requests are decoded one by one, so that only the bad one fails; what fails in a batch is asked again in parts.
# Seen: with max_batch_size, requests of unrelated clients are decoded, computed and answered as one. One body without its field, or one value that the
# model refuses, makes every answer of the batch 500 "Internal server error", without a word on whose fault it was. The same request, alone, is
# answered. So a client must ask again what was answered 500, and a bad row that is tried again spoils others each time.
# Versions: litserve 0.2.19, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check litserve==0.2.19
cat > server.py <<'PY'
import litserve


class Reciprocal(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["x"]

    def predict(self, numbers):
        return [1 / number for number in numbers]

    def encode_response(self, number):
        return {"y": number}


if __name__ == "__main__":
    api = Reciprocal(max_batch_size=2, batch_timeout=5.0)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=18741, generate_client_file=False, log_level="critical")
PY
cat > try.py <<'PY'
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor


def ask(body):
    request = urllib.request.Request("http://127.0.0.1:18741/predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


server = subprocess.Popen([sys.executable, "server.py"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
try:
    while server.poll() is None:
        try:
            urllib.request.urlopen("http://127.0.0.1:18741/health")
            break
        except OSError:
            time.sleep(0.2)
    print("alone", ask({"x": 2}))
    for neighbour in ({"x": 4}, {"x": 0}, {"z": 4}):
        with ThreadPoolExecutor() as clients:
            print("beside", neighbour, *clients.map(ask, ({"x": 2}, neighbour)))
finally:
    os.killpg(server.pid, signal.SIGKILL)
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
alone (200, {'y': 0.5})
beside {'x': 4} (200, {'y': 0.5}) (200, {'y': 0.25})
beside {'x': 0} (500, {'detail': 'Internal server error'}) (500, {'detail': 'Internal server error'})
beside {'z': 4} (500, {'detail': 'Internal server error'}) (500, {'detail': 'Internal server error'})
SEEN
echo "as described"
