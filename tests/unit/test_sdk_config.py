"""The SDK's configuration: the same variables, names and defaults as the settings tree."""

from __future__ import annotations

import logging
from dataclasses import fields

import pytest
from pydantic import SecretStr

from routekeel.streams.errors import ConfigurationError
from routekeel.streams.sdk.client import client_properties
from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.settings.tree import Settings

VARIABLES = {field.metadata["variable"]: field.name for field in fields(SdkConfig)}


@pytest.mark.parametrize("variable", VARIABLES)
def test_variable_and_default_are_those_of_the_settings_tree(variable: str) -> None:
    section, name = variable.lower().split("__")
    expected = getattr(getattr(Settings(), section), name)
    assert getattr(SdkConfig(), VARIABLES[variable]) == expected


def test_every_setting_of_the_sdk_section_is_read() -> None:
    names = {v.lower().removeprefix("sdk__") for v in VARIABLES if v.startswith("SDK__")}
    assert names == set(type(Settings().sdk).model_fields)


def test_connection_equals_the_settings_trees() -> None:
    values = {
        "bootstrap_servers": "k:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "u",
        "sasl_password": "p",
        "ssl_ca_file": "ca.pem",
        "ssl_certificate_file": "c.pem",
        "ssl_key_file": "k.pem",
        "ssl_key_password": "kp",
    }
    environ = {f"ROUTEKEEL_KAFKA__{name.upper()}": text for name, text in values.items()}
    tree = Settings.model_validate({"kafka": values})
    assert isinstance(tree.kafka.sasl_password, SecretStr)
    config = SdkConfig.from_environ(environ)
    assert config.connection() == tree.kafka.client_config()
    assert "'p'" not in repr(config)
    assert "kp" not in repr(config)


def test_arguments_win_over_variables() -> None:
    environ = {"ROUTEKEEL_SDK__BUFFER_BYTES": "70000", "ROUTEKEEL_TOPICS__LOGITS": "t"}
    config = SdkConfig.from_environ(environ, buffer_bytes=80000)
    assert (config.buffer_bytes, config.topic) == (80000, "t")


def test_options_come_last() -> None:
    environ = {"ROUTEKEEL_SDK__OPTIONS": '{"linger.ms": 50}'}
    config = SdkConfig.from_environ(environ).with_options(acks=1)
    properties = client_properties(config)
    assert (properties["linger.ms"], properties["acks"]) == (50, 1)
    assert properties["partitioner"] == "murmur2_random"


def test_unknown_variable_is_warned_about_with_the_nearest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        SdkConfig.from_environ({"ROUTEKEEL_SDK__BUFER_BYTES": "1", "ROUTEKEEL_WORKER__STORE": "x"})
    assert [record.getMessage() for record in caplog.records] == [
        "unknown variable ROUTEKEEL_SDK__BUFER_BYTES is ignored; "
        "did you mean ROUTEKEEL_SDK__BUFFER_BYTES?"
    ]


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({"ROUTEKEEL_SDK__BUFFER_BYTES": "many"}, "ROUTEKEEL_SDK__BUFFER_BYTES"),
        ({"ROUTEKEEL_SDK__BUFFER_BYTES": "1"}, "buffer_bytes"),
        ({"ROUTEKEEL_SDK__OPTIONS": "[]"}, "ROUTEKEEL_SDK__OPTIONS"),
        ({"ROUTEKEEL_SDK__OPTIONS": "{"}, "ROUTEKEEL_SDK__OPTIONS"),
        ({"ROUTEKEEL_SDK__ENCODING": "F8"}, "encoding"),
        ({"ROUTEKEEL_SDK__COMPRESSION": "zip"}, "compression"),
        ({"ROUTEKEEL_SDK__LINGER_MS": "nan"}, "linger_ms"),
        ({"ROUTEKEEL_REGISTRY__TIMEOUT_S": "0"}, "registry_timeout_s"),
    ],
)
def test_bad_values_name_the_setting(environ: dict[str, str], part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        SdkConfig.from_environ(environ)


def test_unknown_argument_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="bufer"):
        SdkConfig.from_environ({}, bufer=1)
