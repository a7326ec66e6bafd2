from __future__ import annotations

import pytest

from orchestrator.domain.secrets import holds_secret
from orchestrator.domain.urls import holds_key, shown, without_keys, without_secrets


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("http://somebody:pass@proxy:3128", True),
        ("see postgres://:pass@db/name, please", True),
        ("http://somebody@proxy:3128", False),
        ("http://[::1]:80/a@b?c:d@e", False),
        ("mail to a:b@c", False),
    ],
)
def test_a_password_in_a_url_is_a_key(text: str, holds: bool) -> None:
    assert holds_key(text) is holds


@pytest.mark.parametrize(
    ("url", "kept", "seen"),
    [
        ("http://h/p", "http://h/p", "http://h/p"),
        ("http://h/?key=S", "http://h/", "http://h/?key=***"),
        ("http://h/?v=1&api-key=S&x=2#f", "http://h/?v=1&x=2#f", "http://h/?v=***&api-key=***&x=***#f"),
        ("http://h/?k%65y=S", "http://h/", "http://h/?k%65y=***"),
        ("http://h/?X-Amz-Signature=S&code=S&sig=S&access_token=S&subscriptionKey=S", "http://h/", None),
        ("http://h/?api-version=2024-01&model=a", "http://h/?api-version=2024-01&model=a", None),
        ("http://h/?S", "http://h/?S", "http://h/?***"),  # who knows what it is
    ],
)
def test_keys_are_removed_from_urls_and_queries_are_masked(url: str, kept: str, seen: str | None) -> None:
    assert without_keys(url) == kept
    assert holds_key(url) == (kept != url)
    assert holds_key(f"x = {url} y") == (kept != url)
    hidden = shown({"model": [url], "n": 1, "text": f"see {url}"})
    assert hidden == {"model": [seen if seen is not None else shown(url)], "n": 1, "text": f"see {url}"}
    assert "S" not in str(shown(url)).partition("?")[2].replace("Signature", "").replace("subscriptionKey", "")


def test_a_template_shows_no_secrets_but_all_placeholders_and_limits() -> None:
    template = {
        "inputs": "{text}",
        "parameters": [{"api_key": "sk-1", "key": "{key}", "max_tokens": 5, "token": {"a": 1}}],
    }
    shown_as = {
        "inputs": "{text}",
        "parameters": [{"api_key": "***", "key": "{key}", "max_tokens": 5, "token": {"a": 1}}],
    }
    assert without_secrets(template) == shown_as


def test_options_of_a_command_that_are_named_like_a_key_are_masked() -> None:
    command = ["server", "--api-key", "sk-1", "--hf-token=hf_1", "--port", "80", "--max-tokens=5", "MODE=key"]
    assert shown(command) == [
        *("server", "--api-key", "***", "--hf-token=***", "--port", "80", "--max-tokens=5", "MODE=key"),
    ]


@pytest.mark.parametrize(
    ("argument", "seen"),
    [
        ("HF_TOKEN=hf_1", "HF_TOKEN=***"),
        ("MY_API_KEY='a b' vllm serve --max-tokens 5", "MY_API_KEY=*** vllm serve --max-tokens 5"),
        ('serve --api-key "a b" --port 80', "serve --api-key *** --port 80"),
        ("Authorization: Bearer sk-1", "Authorization: ***"),
        ("curl -H 'x-api-key: sk 1' http://h/", "curl -H 'x-api-key: ***' http://h/"),
        ("KEYS=3", "KEYS=3"),
        ("-v", "-v"),
        ("token:/run/token", "token:/run/token"),
    ],
)
def test_what_an_argument_of_a_command_sets_under_the_name_of_a_key_is_masked(argument: str, seen: str) -> None:
    assert shown(["env", argument]) == ["env", seen]
    assert holds_secret(["env", argument]) is (argument != seen)


def test_texts_under_the_name_of_a_key_are_masked() -> None:
    parameters = {"api_key": "sk-1", "extra_headers": {"Authorization": "Bearer sk-1"}, "max_tokens": 5, "stop": ["x"]}
    seen = {"api_key": "***", "extra_headers": {"Authorization": "***"}, "max_tokens": 5, "stop": ["x"]}
    assert shown({"parameters": parameters}) == {"parameters": seen}
