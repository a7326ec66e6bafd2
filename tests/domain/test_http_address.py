from __future__ import annotations

import pytest

from orchestrator.domain.http_address import HttpAddress, authorities
from orchestrator.domain.identity import Identity, Role

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound


@pytest.mark.parametrize(
    ("text", "address", "loopback", "wildcard"),
    [
        ("127.0.0.1:8377", HttpAddress("127.0.0.1", 8377), True, False),
        ("localhost:0", HttpAddress("localhost", 0), True, False),
        ("[::1]:80", HttpAddress("::1", 80), True, False),
        ("0.0.0.0:1", HttpAddress(EVERYWHERE, 1), False, True),
        ("[::]:1", HttpAddress("::", 1), False, True),
        ("batch.example.org:65535", HttpAddress("batch.example.org", 65535), False, False),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: HttpAddress, loopback: bool, wildcard: bool) -> None:
    assert HttpAddress.parse(text) == address
    assert str(address) == text
    assert (address.loopback, address.wildcard) == (loopback, wildcard)


@pytest.mark.parametrize(
    "text",
    ["", "8377", ":8377", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80", "[host]:80", "h:²"],
)
def test_anything_else_is_not_an_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        HttpAddress.parse(text)


def test_a_browser_may_leave_out_port_80() -> None:
    assert authorities(HttpAddress("Batch.example.org", 80), ()) >= {"localhost", "batch.example.org", "127.0.0.1:80"}
    assert "localhost" not in authorities(HttpAddress("127.0.0.1", 8080), ())


def test_a_wildcard_is_no_name() -> None:
    assert "0.0.0.0:80" not in authorities(HttpAddress(EVERYWHERE, 80), ("batch.example.org",))


def test_each_role_includes_the_ones_before_it() -> None:
    assert [[role.includes(needed) for needed in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_only_an_admin_sees_what_everybody_made() -> None:
    assert [Identity("ann", role).only for role in Role] == ["ann", "ann", None]
