"""Who may ask: one user with one password, given in any of the ways ClickHouse accepts.

The password is compared in constant time. There is no way to run the gateway without one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from routekeel.infra.local.gateway.replies import (
    AUTHENTICATION_FAILED,
    REQUIRED_PASSWORD,
    ClickHouseError,
)


@dataclass(frozen=True)
class Access:
    """The one user."""

    username: str
    password: str = field(repr=False)

    def check(self, headers: Mapping[str, str], options: Mapping[str, str]) -> None:
        """Raise ClickHouseError unless the request carries the right name and password."""
        given = _credentials(headers, options)
        if given is None:
            raise ClickHouseError.of(
                REQUIRED_PASSWORD, "REQUIRED_PASSWORD", "A user name and a password are required"
            )
        name, password = given
        right_name = hmac.compare_digest(name.encode(), self.username.encode())
        right_password = hmac.compare_digest(password.encode(), self.password.encode())
        if not (right_name and right_password):
            raise ClickHouseError.of(
                AUTHENTICATION_FAILED,
                "AUTHENTICATION_FAILED",
                f"{name}: Authentication failed: password is incorrect, or there is no user with "
                "such name.",
            )


def _credentials(headers: Mapping[str, str], options: Mapping[str, str]) -> tuple[str, str] | None:
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        return headers.get("X-ClickHouse-User", "default"), headers.get("X-ClickHouse-Key", "")
    authorization = headers.get("Authorization", "")
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return name, password
    if "user" in options or "password" in options:
        return options.get("user", "default"), options.get("password", "")
    return None
