"""Why a notice did not arrive; none of the messages holds an address, which may be a secret.

::

    NoticeNotSentError
    ├── ChannelDownError      no answer, or one that another try may change
    ├── ChannelBusyError      asked to come back later
    └── NoticeRefusedError    an answer that no other try will change
"""

from __future__ import annotations

from cryptoml_assets.errors import NoticeNotSentError


class ChannelDownError(NoticeNotSentError):
    """No answer, or one that another try may change: refused connection, time out, HTTP 5xx."""


class ChannelBusyError(NoticeNotSentError):
    """Asked to come back in ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoticeRefusedError(NoticeNotSentError):
    """An answer that no other try will change: wrong address, key, recipient or form."""
