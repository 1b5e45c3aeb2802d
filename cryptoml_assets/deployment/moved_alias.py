"""People are told of a champion alias that was moved by hand, by whoever finds it first."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptoml_assets.notices import alerts
from cryptoml_assets.resources.notifier import Notifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptoml_assets.deployment.promotion import Reconciled, Tell
    from cryptoml_assets.settings import Settings

_LOG = logging.getLogger(__name__)


def teller(
    configured: Settings,
    log: logging.Logger = _LOG,
    *,
    at_once: bool | None = None,
    links: Mapping[str, str] | None = None,
) -> Tell:
    """What `promotion.decide` and `promotion.reconcile` are to call for a moved alias.

    It posts one notice under one key, whoever finds the alias, so that nobody is told twice within
    the quiet time. It never raises: no decision fails because nobody can be told.

    Args:
        configured: says where notices go.
        log: where the lines go.
        at_once: whether to send the notice too; when not given, where runs are pods, whose record
            of notices goes with them, so that no sensor would ever send what is in it.
        links: where to look.
    """
    send_now = configured.execution != "local" if at_once is None else at_once

    def tell(found: Reconciled) -> None:
        try:
            where = dict(links or {})
            notice = alerts.alias_moved(configured.model_name, found, datetime.now(UTC), where)
            notifier = Notifier.of(configured, log)
            send = notifier.notify if send_now else notifier.post
            send(notice)
        except Exception:
            # The alias is back already, and what was decided stands.
            log.exception("nobody is told of the alias of %s", configured.model_name)

    return tell
