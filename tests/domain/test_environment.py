from __future__ import annotations

import pytest

from orchestrator.domain.environment import is_secret, without_secrets


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "PGPASSWORD",
        "MYSQL_PWD",
        "GITHUB_PAT",
        "CHAT_SECRET",
        "SSH_AUTH_SOCK",
        "SENTRY_DSN",
        "my_apikey",
        "AZURE_STORAGE_CONNECTION_STRING",
        "SLACK_WEBHOOK_URL",
    ],
)
def test_a_variable_named_like_a_secret_is_a_secret(name: str) -> None:
    assert is_secret(name, "x")


@pytest.mark.parametrize(
    "name", ["PATH", "PWD", "OLDPWD", "HOME", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES", "HF_HOME", "KEYBOARD"]
)
def test_any_other_variable_is_not_a_secret(name: str) -> None:
    assert not is_secret(name, "/home/x:/y")


@pytest.mark.parametrize("value", ["postgres://me:pass@db/x", "https://glpat@git.example.com/simple"])
def test_a_url_with_a_user_is_a_secret_unless_it_is_a_proxy(value: str) -> None:
    assert is_secret("DATABASE_URL", value)
    assert not is_secret("https_proxy", value)


def test_needed_variables_are_kept_and_index_settings_only_for_installers() -> None:
    ours = {"HF_TOKEN": "a", "OPENAI_API_KEY": "b", "PIP_INDEX_URL": "https://me:p@index/simple", "PATH": "/bin"}
    assert without_secrets(ours, (), installs=False) == {"PATH": "/bin"}
    assert without_secrets(ours, ("HF_TOKEN",), installs=True).keys() == {"PATH", "HF_TOKEN", "PIP_INDEX_URL"}
