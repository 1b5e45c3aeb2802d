"""Channels that take HTTP: Slack, Teams, PagerDuty and any program that wants JSON."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from cryptoml_assets.notices import templates
from cryptoml_assets.notices.errors import (
    ChannelBusyError,
    ChannelDownError,
    NoticeRefusedError,
)
from cryptoml_assets.notices.mail import MailChannel

if TYPE_CHECKING:
    from cryptoml_assets.monitoring.options import MonitoringSettings
    from cryptoml_assets.notices.notice import Notice

#: Header with ``sha256=`` and the HMAC of the body, where a secret is set.
SIGNATURE_HEADER = "X-Cryptoml-Signature-256"
#: Longest wait for a connection, and between two bytes of an answer, in seconds.
TIMEOUT = 5.0
_OK, _MULTIPLE_CHOICES, _SERVER_ERROR = 200, 300, 500
_TRY_AGAIN = frozenset({408, 425, 429})
#: What httpx raises where another try may go better.
_TRANSIENT = (
    httpx.NetworkError,
    httpx.TimeoutException,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
)
_sending: ContextVar[bool] = ContextVar("sending a notice", default=False)


class Channel(Protocol):
    """Where notices go."""

    @property
    def name(self) -> str:
        """What the record calls it."""

    def send(self, notice: Notice) -> None:
        """Send one notice, once.

        Raises:
            NoticeNotSentError: it did not arrive; which kind says whether to try again.
        """


@dataclass(frozen=True)
class HttpChannel:
    """A webhook.

    Attributes:
        name: what the record calls it.
        url: where to; with Slack and Teams it is a secret itself.
        render: the JSON body of a notice.
        secret: key of the body's HMAC; empty: not signed.
        timeout: longest wait for the server, seconds.
    """

    name: str
    url: str = field(repr=False)
    render: Callable[[Notice], dict[str, Any]] = field(repr=False)
    secret: str = field(default="", repr=False)
    timeout: float = TIMEOUT

    def send(self, notice: Notice) -> None:
        """Post the notice; any 2xx is success, and no redirect is followed."""
        body = json.dumps(self.render(notice)).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "cryptoml"}
        if self.secret:
            digest = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = f"sha256={digest}"
        # The cause is left out of the errors: it can hold the address.
        try:
            with (
                _unlogged(),
                httpx.Client(timeout=self.timeout, verify=_trusted()) as client,
                client.stream("POST", self.url, content=body, headers=headers) as answer,
            ):
                status, asked = answer.status_code, answer.headers.get("Retry-After", "")
        except _TRANSIENT as error:
            message = f"{self.name} does not answer: {type(error).__name__}"
            raise ChannelDownError(message) from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            message = f"{self.name} cannot be asked: {type(error).__name__}"
            raise NoticeRefusedError(message) from None
        self._check(status, retry_after(asked))

    def _check(self, status: int, wait: float | None) -> None:
        if _OK <= status < _MULTIPLE_CHOICES:
            return
        message = f"{self.name} answered {status}"
        if status not in _TRY_AGAIN and status < _SERVER_ERROR:
            raise NoticeRefusedError(message)
        if wait is not None:
            raise ChannelBusyError(f"{message}: again in {wait:g} s", wait)
        raise ChannelDownError(message)


def channels(configured: MonitoringSettings) -> tuple[Channel, ...]:
    """The channels that the settings name."""
    key, found = configured.notify_pagerduty_key, list[Channel]()
    if configured.notify_slack_url:
        found.append(HttpChannel("slack", configured.notify_slack_url, templates.slack))
    if configured.notify_teams_url:
        found.append(HttpChannel("teams", configured.notify_teams_url, templates.teams))
    if key:
        address = configured.notify_pagerduty_url
        found.append(HttpChannel("pagerduty", address, lambda each: templates.pagerduty(each, key)))
    if configured.notify_smtp and configured.notify_email_to:
        sender = configured.notify_email_from or "cryptoml@localhost"
        found.append(MailChannel(configured.notify_smtp, sender, configured.notify_email_to))
    if configured.notify_webhook_url:
        secret = configured.notify_webhook_secret
        found.append(
            HttpChannel("webhook", configured.notify_webhook_url, templates.webhook, secret)
        )
    return tuple(found)


def retry_after(text: str) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait, given in seconds or as a date."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted; reading them takes longer than sending a notice."""
    return httpx.create_ssl_context()


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without httpx's own line per request, which holds the whole address."""
    logger = logging.getLogger("httpx")
    if _not_ours not in logger.filters:
        logger.addFilter(_not_ours)
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)


def _not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001 - what a filter is given
    return not _sending.get()
