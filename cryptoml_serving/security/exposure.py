"""What the service may listen on, given how it tells callers apart."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.telemetry import event

if TYPE_CHECKING:
    from cryptoml_serving.settings import ServingSettings


_LOG = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address; a name other than localhost may be any."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(settings: ServingSettings) -> None:
    """Refuse to be reached from other machines without authentication.

    Raises:
        SettingsError: naming the address and what to set.
    """
    if settings.serving_keys is not None or settings.serving_jwt_issuer:
        return
    for variable, host in _exposed(settings).items():
        message = (
            f"{variable}={host}: other machines may reach it, and no authentication is "
            "configured. Accepted: 127.0.0.1, or any address once CRYPTOML_SERVING_KEYS or "
            "CRYPTOML_SERVING_JWT_ISSUER is set"
        )
        raise SettingsError(message)


def warn_of_plain_text(settings: ServingSettings) -> None:
    """Log that credentials would cross a network for all to read, unless something is before."""
    if settings.serving_tls_certificate is not None:
        return
    for variable, host in _exposed(settings).items():
        message = (
            f"{variable}={host} over plain HTTP: keys and tokens can be read on the way, unless a "
            "proxy with TLS stands before this service"
        )
        event(_LOG, logging.WARNING, "plain_text", message)


def _exposed(settings: ServingSettings) -> dict[str, str]:
    """The variables whose addresses other machines may reach, with these."""
    hosts = {"CRYPTOML_SERVING_HOST": settings.serving_host}
    if settings.serving_admin_port:
        hosts["CRYPTOML_SERVING_ADMIN_HOST"] = settings.serving_admin_host
    return {variable: host for variable, host in hosts.items() if not is_loopback(host)}
