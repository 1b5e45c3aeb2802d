"""The channel that sends mail."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from cryptoml_assets.notices import templates
from cryptoml_assets.notices.errors import ChannelDownError, NoticeRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import EmailMessage

    from cryptoml_assets.notices.notice import Notice

#: Longest wait for each answer of the server, seconds.
TIMEOUT = 5.0
_PORTS = {"smtp": 587, "smtps": 465}
_PERMANENT = 500


@dataclass(frozen=True)
class MailChannel:
    """A mail server.

    Attributes:
        address: ``smtp://user:password@host:587``, which turns to TLS where the server can, or
            ``smtps://…``, which begins with it.
        sender: who the mail is from.
        recipients: who gets it.
        timeout: longest wait for each answer, seconds.
    """

    address: str = field(repr=False)
    sender: str
    recipients: Sequence[str]
    timeout: float = TIMEOUT
    name: str = "email"

    def send(self, notice: Notice) -> None:
        """Hand the mail to the server.

        Raises:
            ChannelDownError: no connection, or an answer that may be another one later.
            NoticeRefusedError: a refusal, an address that is none, or a password that would have
                to be sent in the clear.
        """
        message = templates.email(notice, self.sender, self.recipients)
        # The cause is left out of the errors: a server may repeat what it was sent.
        try:
            self._deliver(message)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise self._refused(min(codes), "to every recipient") from None
        except smtplib.SMTPResponseException as error:
            raise self._refused(error.smtp_code, type(error).__name__) from None
        except ssl.SSLCertVerificationError:
            raise NoticeRefusedError("the mail server's certificate is not trusted") from None
        except smtplib.SMTPNotSupportedError as error:
            message_text = f"the mail server lacks what is needed: {type(error).__name__}"
            raise NoticeRefusedError(message_text) from None
        except (OSError, smtplib.SMTPException) as error:
            text = f"the mail server does not answer: {type(error).__name__}"
            raise ChannelDownError(text) from None

    def _deliver(self, message: EmailMessage) -> None:
        place, port = self._place()
        server = self._connect(place, port)
        try:
            if place.username is not None:
                server.login(unquote(place.username), unquote(place.password or ""))
            # Some recipients may be refused while others get it; then it has been sent.
            server.send_message(message)
        finally:
            with suppress(smtplib.SMTPException, OSError):
                server.quit()

    def _place(self) -> tuple[SplitResult, int]:
        try:
            place = urlsplit(self.address)
            port = place.port
        except ValueError:
            place, port = urlsplit(""), None
        if place.scheme not in _PORTS or not place.hostname:
            text = "CRYPTOML_NOTIFY_SMTP is no address like smtp://user:password@host:587"
            raise NoticeRefusedError(text)
        return place, port or _PORTS[place.scheme]

    def _connect(self, place: SplitResult, port: int) -> smtplib.SMTP:
        """A connection, encrypted before any password is sent over it."""
        host = place.hostname or ""
        if place.scheme == "smtps":
            trusted = ssl.create_default_context()
            return smtplib.SMTP_SSL(host, port, timeout=self.timeout, context=trusted)
        server = smtplib.SMTP(host, port, timeout=self.timeout)
        try:
            _encrypt(server, place)
        except BaseException:  # interrupted too: nobody else has it to close
            server.close()
            raise
        return server

    @staticmethod
    def _refused(code: int, what: str) -> ChannelDownError | NoticeRefusedError:
        text = f"the mail server answered {code}: {what}"
        return NoticeRefusedError(text) if code >= _PERMANENT else ChannelDownError(text)


def _encrypt(server: smtplib.SMTP, place: SplitResult) -> None:
    """Turn a connection to TLS where the server can; refuse to log in where it cannot."""
    server.ehlo_or_helo_if_needed()
    if server.has_extn("starttls"):
        server.starttls(context=ssl.create_default_context())
    elif place.username is not None:
        text = "the mail server offers no TLS: the password is not sent in the clear"
        raise NoticeRefusedError(text)
