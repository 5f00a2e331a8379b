"""The SDK's configuration: arguments over ROUTEKEEL_* variables over defaults.

The variables have the names of the settings tree (streams/settings), read here without pydantic:
an inference worker needs no more packages. A test holds the two to the same names and defaults.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypedDict

from routekeel.streams.errors import ConfigurationError

PREFIX = "ROUTEKEEL_"
ENCODINGS = ("F32", "F16", "TOPM_F16")
COMPRESSIONS = ("none", "lz4", "zstd", "snappy", "gzip")
_logger = logging.getLogger("routekeel.sdk")


def _variable(
    name: str, default: Any, read: Callable[[str], Any] = str, *, secret: bool = False
) -> Any:
    return field(default=default, metadata={"variable": name, "read": read}, repr=not secret)


def _json_object(value: str) -> dict[str, Any]:
    parsed = json.loads(value)
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    return parsed


class SdkOptions(TypedDict, total=False):
    """The keyword arguments that set one field of SdkConfig each."""

    bootstrap_servers: str
    topic: str
    registry_url: str
    buffer_bytes: int
    linger_ms: float
    compression: str
    encoding: str
    top_m: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SdkConfig:
    """How to reach Kafka and the registry, and how much may be buffered.

    `buffer_bytes` bounds the bytes that wait for the broker, `record_bytes_max` one record;
    `encoding` is F16, F32 or TOPM_F16 (with `top_m` logits per row); `options` are further
    librdkafka properties and win over everything here. Raises ConfigurationError.
    """

    bootstrap_servers: str = _variable("KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    security_protocol: str = _variable("KAFKA__SECURITY_PROTOCOL", "PLAINTEXT")
    sasl_mechanism: str = _variable("KAFKA__SASL_MECHANISM", "PLAIN")
    sasl_username: str | None = _variable("KAFKA__SASL_USERNAME", None)
    sasl_password: str | None = _variable("KAFKA__SASL_PASSWORD", None, secret=True)
    ssl_ca_file: str | None = _variable("KAFKA__SSL_CA_FILE", None)
    ssl_certificate_file: str | None = _variable("KAFKA__SSL_CERTIFICATE_FILE", None)
    ssl_key_file: str | None = _variable("KAFKA__SSL_KEY_FILE", None)
    ssl_key_password: str | None = _variable("KAFKA__SSL_KEY_PASSWORD", None, secret=True)
    registry_url: str = _variable("REGISTRY__URL", "http://127.0.0.1:8081")
    registry_username: str | None = _variable("REGISTRY__USERNAME", None)
    registry_password: str | None = _variable("REGISTRY__PASSWORD", None, secret=True)
    registry_timeout_s: float = _variable("REGISTRY__TIMEOUT_S", 5.0, float)
    topic: str = _variable("TOPICS__LOGITS", "routekeel.logits")
    telemetry_topic: str = _variable("TOPICS__TELEMETRY", "routekeel.telemetry")
    weights_topic: str = _variable("TOPICS__WEIGHTS", "routekeel.weights")
    record_bytes_max: int = _variable("TOPICS__RECORD_BYTES_MAX", 16 * 2**20, int)
    buffer_bytes: int = _variable("SDK__BUFFER_BYTES", 32 * 2**20, int)
    linger_ms: float = _variable("SDK__LINGER_MS", 5.0, float)
    compression: str = _variable("SDK__COMPRESSION", "lz4")
    encoding: str = _variable("SDK__ENCODING", "F16")
    top_m: int = _variable("SDK__TOP_M", 16, int)
    options: Mapping[str, Any] = field(
        default_factory=dict, metadata={"variable": "SDK__OPTIONS", "read": _json_object}
    )

    def __post_init__(self) -> None:
        """Refuse what would only fail later, in the middle of serving."""
        _one_of("encoding", self.encoding, ENCODINGS)
        _one_of("compression", self.compression, COMPRESSIONS)
        for name, least in (
            ("buffer_bytes", 2**16),
            ("top_m", 1),
            ("linger_ms", 0),
            ("record_bytes_max", 2**10),
        ):
            if not getattr(self, name) >= least:
                raise ConfigurationError(
                    f"{name} is {getattr(self, name)!r}, it must be at least {least}"
                )
        if not self.registry_timeout_s > 0:
            raise ConfigurationError("registry_timeout_s must be above 0")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> SdkConfig:
        """The configuration from ROUTEKEEL_* variables, `arguments` winning over them.

        An unknown ROUTEKEEL_SDK__ variable is warned about with the nearest name; the other
        sections have settings that are none of the SDK's business.

        >>> SdkConfig.from_environ({"ROUTEKEEL_SDK__TOP_M": "8"}, encoding="F32").top_m
        8
        """
        environ = os.environ if environ is None else environ
        found: dict[str, Any] = {}
        known = {PREFIX + str(f.metadata["variable"]): f for f in fields(cls)}
        for variable, text in environ.items():
            entry = known.get(variable.upper())
            if entry is not None:
                try:
                    found[entry.name] = entry.metadata["read"](text)
                except ValueError as error:
                    raise ConfigurationError(
                        f"variable {variable} cannot be read: {error}"
                    ) from error
            elif variable.upper().startswith(PREFIX + "SDK__"):
                near = difflib.get_close_matches(variable.upper(), known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                _logger.warning("unknown variable %s is ignored%s", variable, hint)
        unknown = set(arguments) - {f.name for f in fields(cls)}
        if unknown:
            raise ConfigurationError(f"unknown argument {', '.join(sorted(unknown))}")
        return cls(**found | {name: v for name, v in arguments.items() if v is not None})

    def with_fields(self, **fields: Any) -> SdkConfig:
        """The same configuration with these fields replaced."""
        return replace(self, **fields)

    def with_options(self, **options: Any) -> SdkConfig:
        """The same configuration with these librdkafka properties on top."""
        return replace(self, options={**self.options, **options})

    def connection(self) -> dict[str, Any]:
        """How to reach the brokers, as librdkafka properties."""
        sasl = "SASL" in self.security_protocol
        options = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism if sasl else None,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ssl_ca_file,
            "ssl.certificate.location": self.ssl_certificate_file,
            "ssl.key.location": self.ssl_key_file,
            "ssl.key.password": self.ssl_key_password,
        }
        return {name: value for name, value in options.items() if value is not None}


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value).upper(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(known)}"
        raise ConfigurationError(f"{name} {value!r} is unknown", hint)
