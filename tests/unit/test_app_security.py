"""The worker's way to secured brokers: what aiokafka is told, and a TLS handshake that holds it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from routekeel.streams.app.faust_app import create_app, credentials, tls_context
from routekeel.streams.app.kafka_producer import producer_options
from routekeel.streams.app.transport import driver
from routekeel.streams.errors import ConfigurationError
from routekeel.streams.settings import KafkaSettings, load_settings
from routekeel.streams.topics import admin_client
from tests.unit.certificates import own_certificate


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("pems")
    made = {name: own_certificate(folder, name) for name in ("broker", "stranger")}
    return made | {"client": own_certificate(folder, "client", b"secret")}


def kafka(**values: Any) -> KafkaSettings:
    return KafkaSettings.model_validate(values)


def told(settings: KafkaSettings) -> dict[str, Any]:
    """What Faust hands to aiokafka's client, and the sender of outputs to its own."""
    options = dict(driver.credentials_to_aiokafka_auth(credentials(settings)))
    own = producer_options(settings)
    assert own.pop("bootstrap_servers") == ["127.0.0.1:9092"] and own.pop("enable_idempotence")
    assert own.keys() == options.keys()
    return own


def test_plain_text_needs_no_credentials() -> None:
    assert credentials(kafka()) is None


def test_a_password_without_tls() -> None:
    options = told(
        kafka(
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_username="u",
            sasl_password="p",
        )
    )
    assert options["security_protocol"] == "SASL_PLAINTEXT"
    assert options["sasl_mechanism"] == "SCRAM-SHA-256"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "p")
    assert options.get("ssl_context") is None


def test_a_password_over_tls_checks_the_broker(pems: dict[str, tuple[Path, Path]]) -> None:
    options = told(
        kafka(
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="u",
            sasl_password="p",
            ssl_ca_file=pems["broker"][0],
        )
    )
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    context = options["ssl_context"]
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    (authority,) = context.get_ca_certs()
    assert "routekeel test broker" in str(authority["subject"])


def test_tls_alone(pems: dict[str, tuple[Path, Path]]) -> None:
    options = told(kafka(security_protocol="SSL", ssl_ca_file=pems["broker"][0]))
    assert options["security_protocol"] == "SSL"
    assert isinstance(options["ssl_context"], ssl.SSLContext)


def handshake(client: ssl.SSLContext, pems: dict[str, tuple[Path, Path]], mutual: bool) -> Any:
    """Shake hands with a broker in memory; the certificate that it saw of the client."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*pems["broker"])
    if mutual:
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(pems["client"][0])
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(one, two, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(two, one, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not waiting, "the handshake did not end"
    return theirs.getpeercert()


def test_a_broker_of_the_named_ca_is_trusted_and_another_is_not(
    pems: dict[str, tuple[Path, Path]],
) -> None:
    trusting = tls_context(kafka(security_protocol="SSL", ssl_ca_file=pems["broker"][0]))
    assert not handshake(trusting, pems, mutual=False)
    for ca in (pems["stranger"][0], None):
        wary = tls_context(kafka(security_protocol="SSL", ssl_ca_file=ca))
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(wary, pems, mutual=False)


def test_the_clients_certificate_is_shown_with_its_encrypted_key(
    pems: dict[str, tuple[Path, Path]],
) -> None:
    ca, (certificate, key) = pems["broker"][0], pems["client"]
    files = {"ssl_certificate_file": certificate, "ssl_key_file": key, "ssl_ca_file": ca}
    context = tls_context(kafka(security_protocol="SSL", ssl_key_password="secret", **files))
    seen = handshake(context, pems, mutual=True)
    assert "routekeel test client" in str(seen["subject"])
    with pytest.raises(ConfigurationError, match="TLS") as raised:
        tls_context(kafka(security_protocol="SSL", ssl_key_password="wrong", **files))
    assert "kafka.ssl_key_password" in raised.value.hint


def test_a_file_that_is_missing_or_no_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for name in ("none.pem", "text.pem"):
        with pytest.raises(ConfigurationError, match=name) as raised:
            tls_context(kafka(security_protocol="SSL", ssl_ca_file=tmp_path / name))
        assert "kafka.ssl_ca_file" in raised.value.hint


def test_a_key_in_the_certificates_file_needs_no_file_of_its_own(
    pems: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in pems["stranger"]))
    context = tls_context(kafka(security_protocol="SSL", ssl_certificate_file=both))
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_every_command_tells_of_a_missing_ca_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    flags = {"kafka.security_protocol": "SSL", "kafka.ssl_ca_file": missing}
    with pytest.raises(ConfigurationError, match=r"ssl\.ca\.location") as raised:
        admin_client(load_settings(None, flags, {}).settings)
    assert "section kafka" in raised.value.hint


async def test_the_app_takes_brokers_and_credentials_from_the_settings() -> None:
    flags = {
        "kafka.bootstrap_servers": "one:9093, two:9093",
        "kafka.security_protocol": "SASL_PLAINTEXT",
        "kafka.sasl_username": "u",
        "kafka.sasl_password": "hush",
    }
    app = create_app(load_settings(None, flags, {}).settings, lambda topic, partition: None)
    assert [str(url) for url in app.conf.broker] == ["kafka://one:9093", "kafka://two:9093"]
    assert app.conf.broker_credentials.username == "u"
    assert "hush" not in repr(app.conf.broker_credentials)
