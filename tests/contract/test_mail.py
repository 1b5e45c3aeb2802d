"""Mail against a real server on this machine: over TLS, in the clear, rude."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cryptoml_assets.notices import templates
from cryptoml_assets.notices.errors import ChannelDownError, NoticeRefusedError
from cryptoml_assets.notices.mail import MailChannel
from cryptoml_assets.notices.notice import Notice
from cryptoml_assets.settings import settings
from cryptoml_serving.contract.settings import SettingsError
from tests.mail_server import Mailbox, mail_server

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
PASSWORD = "p%40ss-w0rd"  # noqa: S105 - of no server, as an address spells it
NOTICE = Notice("run_failed", "critical", "A run\nfailed", "because <it> & more", "run:a", AT)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ssl.SSLContext]:
    """A server's side of TLS, whose certificate this process trusts once it is asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    none = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, none))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)

    def trust() -> ssl.SSLContext:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        return context

    trust.untrusted = context  # type: ignore[attr-defined]
    return trust


def mail_to(port: int, user: str = "") -> MailChannel:
    who = f"{user}:{PASSWORD}@" if user else ""
    return MailChannel(f"smtp://{who}127.0.0.1:{port}", "from@x.io", ("one@x.io", "two@x.io"))


def test_mail_is_sent_over_tls_after_a_login(tls: Callable[[], ssl.SSLContext]) -> None:
    with mail_server(Mailbox(tls=tls(), login=True)) as box:
        mail_to(box.port, "user").send(NOTICE)
    (mail,) = box.mails
    assert "Subject: [critical] A run failed\r\n" in mail
    assert "To: one@x.io, two@x.io" in mail
    assert f"Message-ID: <{templates.identity(NOTICE)}@cryptoml>" in mail
    assert "because <it> & more" in mail
    verbs = [line.split()[0].upper() for line in box.said]
    assert verbs.index("STARTTLS") < verbs.index("AUTH") < verbs.index("MAIL")
    assert verbs.count("RCPT") == 2


def test_a_password_is_never_sent_in_the_clear() -> None:
    with mail_server(Mailbox(login=True)) as box:
        with pytest.raises(NoticeRefusedError, match="offers no TLS"):
            mail_to(box.port, "user").send(NOTICE)
        mail_to(box.port).send(NOTICE)  # without one there is nothing to hide
    assert "AUTH" not in " ".join(box.said)
    assert len(box.mails) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls: Callable[[], ssl.SSLContext],
) -> None:
    untrusted: ssl.SSLContext = tls.untrusted  # type: ignore[attr-defined]
    with (
        mail_server(Mailbox(tls=untrusted)) as box,
        pytest.raises(NoticeRefusedError, match="certificate is not trusted"),
    ):
        mail_to(box.port).send(NOTICE)
    assert box.mails == []


@pytest.mark.parametrize(
    ("reply", "error"), [("451 later", ChannelDownError), ("550 unknown", NoticeRefusedError)]
)
def test_what_the_mail_server_says_decides_whether_to_try_again(
    reply: str, error: type[Exception]
) -> None:
    with (
        mail_server(Mailbox(reply=reply)) as box,
        pytest.raises(error, match=f"answered {reply[:3]}"),
    ):
        mail_to(box.port).send(NOTICE)


def test_an_address_that_is_none_says_what_one_is() -> None:
    with pytest.raises(NoticeRefusedError, match=r"smtp://user:password@host:587"):
        MailChannel("mail.example.com", "a@b.c", ("d@e.f",)).send(NOTICE)


def test_mail_without_a_recipient_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOML_NOTIFY_SMTP", f"smtp://user:{PASSWORD}@mail.example.com")
    settings.cache_clear()
    with pytest.raises(SettingsError, match="CRYPTOML_NOTIFY_EMAIL_TO is empty") as caught:
        settings()
    assert PASSWORD not in str(caught.value)
    monkeypatch.setenv("CRYPTOML_NOTIFY_EMAIL_TO", "to@example.com")
    assert settings().notify_email_to == ("to@example.com",)
