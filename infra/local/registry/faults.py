"""What the registry refuses, with the codes that clients of Confluent's registry know.

Only the factories below make a fault, so that a code and its HTTP status never part.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RegistryError(Exception):
    """A refusal: HTTP status, error code and message."""

    status: int
    code: int
    message: str


def no_subject(subject: str) -> RegistryError:
    """40401."""
    return RegistryError(404, 40401, f"Subject '{subject}' not found.")


def no_version(version: object) -> RegistryError:
    """40402."""
    return RegistryError(404, 40402, f"Version {version} not found.")


def no_schema() -> RegistryError:
    """40403."""
    return RegistryError(404, 40403, "Schema not found")


def no_level(subject: str) -> RegistryError:
    """40408."""
    return RegistryError(
        404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured"
    )


def invalid_schema(reason: str) -> RegistryError:
    """42201."""
    return RegistryError(422, 42201, f"Invalid schema: {reason}")


def invalid_version(version: str) -> RegistryError:
    """42202."""
    return RegistryError(
        422,
        42202,
        f"The specified version '{version}' is not a valid version id: 1 or more, or 'latest'.",
    )


def invalid_level(level: object) -> RegistryError:
    """42203."""
    return RegistryError(422, 42203, f"Invalid compatibility level: {level!r}")


def not_permitted(what: str) -> RegistryError:
    """42205."""
    return RegistryError(422, 42205, f"Operation not permitted: {what}")


def incompatible(subject: str, reasons: list[str]) -> RegistryError:
    """409."""
    return RegistryError(
        409,
        409,
        f"Schema being registered is incompatible with an earlier schema for subject "
        f'"{subject}", details: {reasons}',
    )


def store_failed(reason: str) -> RegistryError:
    """50001."""
    return RegistryError(500, 50001, f"Error in the backend data store: {reason}")
