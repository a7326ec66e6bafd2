"""Which proxy a URL is asked by, as curl and most programs read the environment."""

from __future__ import annotations

import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.domain.proxies import proxy_for, proxy_headers

PROXY, OTHER = "http://proxy:3128", "http://other:3128"


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://h/", {}, None),
        ("https://h/", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://h/", {"https_proxy": PROXY, "HTTPS_PROXY": OTHER}, PROXY),
        ("https://h/", {"HTTP_PROXY": PROXY}, None),
        ("http://h/", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://h/", {"ALL_PROXY": PROXY}, PROXY),
        ("http://h/", {"ALL_PROXY": PROXY, "http_proxy": OTHER}, OTHER),
        ("http://h/", {"HTTP_PROXY": " "}, None),
        ("http://h/", {"HTTP_PROXY": "proxy:3128"}, PROXY),
        ("http://h/", {"HTTP_PROXY": "https://proxy/"}, "https://proxy/"),
        *((f"http://{host}/", {"HTTP_PROXY": PROXY}, None) for host in ("localhost:8000", "127.0.0.1", "127.9.9.9")),
        *((f"http://{host}/", {"HTTP_PROXY": PROXY}, None) for host in ("[::1]:80", "a.localhost", "0.0.0.0:80")),
    ],
)
def test_the_variable_of_the_scheme_applies_except_on_this_machine(
    url: str, environment: dict[str, str], proxy: str | None
) -> None:
    assert proxy_for(url, environment) == proxy


@pytest.mark.parametrize(
    ("url", "no_proxy", "exempt"),
    [
        ("http://h.example.com/", "*", True),
        ("http://h.example.com/", "example.com", True),
        ("http://h.example.com/", ".example.com", True),
        ("http://h.example.com/", "*.example.com", True),
        ("http://H.Example.COM/", "a, h.EXAMPLE.com ", True),
        ("http://notexample.com/", "example.com", False),
        ("http://h.example.com/", "", False),
        ("http://h.example.com/", ",", False),
        ("http://h.example.com:8000/", "example.com:8000", True),
        ("http://h.example.com/", "example.com:8000", False),
        ("http://h.example.com/", "example.com:80", True),
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://10.1.2.3/", "10.1.2.3", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://[fd00::1]/", "fd00::/8", True),
        ("http://h/", "10.0.0.0/8", False),
    ],
)
def test_hosts_in_no_proxy_are_asked_directly(url: str, no_proxy: str, exempt: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert proxy_for(url, {"HTTP_PROXY": PROXY, name: no_proxy}) == (None if exempt else PROXY)


@pytest.mark.parametrize(
    "value", ["socks5://me:hunter22@proxy:1080", "http://", "http://me:hunter22@proxy:port", "ftp://p"]
)
def test_an_invalid_proxy_is_refused_in_one_line_without_its_password(value: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY must be the URL of an HTTP proxy") as raised:
        proxy_for("https://h/", {"HTTPS_PROXY": value})
    assert "hunter22" not in str(raised.value)


def test_a_proxys_user_is_sent_as_a_header() -> None:
    assert proxy_headers("http://me:p%40ss@proxy:3128") == {"Proxy-Authorization": "Basic bWU6cEBzcw=="}
    assert proxy_headers(PROXY) == proxy_headers(None) == {}
