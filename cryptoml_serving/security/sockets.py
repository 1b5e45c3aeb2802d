"""Ports and certificates, checked before anything listens."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from cryptoml_serving.contract.settings import SettingsError

if TYPE_CHECKING:
    from cryptoml_serving.settings import ServingSettings

_HIGHEST_PORT = 65535


def bind(host: str, port: int) -> socket.socket | None:
    """A listening socket; none where another listens, or the address is not this machine's."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # A port whose last connections are still being closed is free.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        # Two sockets may be bound to a port for as long as neither listens.
        found.listen()
    except OSError:
        found.close()
        return None
    return found


def admin_ports(settings: ServingSettings) -> range:
    """A port of the admin routes for each worker; none where there are to be no such routes."""
    first = settings.serving_admin_port
    return range(first, first + settings.serving_workers) if first else range(0)


def check_free(settings: ServingSettings) -> None:
    """See that every port can be had. The server itself would share one without a word.

    Raises:
        SettingsError: naming the port that cannot.
    """
    wanted = [("SERVING_PORT", settings.serving_host, settings.serving_port)]
    for port in admin_ports(settings):
        if port > _HIGHEST_PORT:
            message = (
                f"CRYPTOML_SERVING_ADMIN_PORT={settings.serving_admin_port}: "
                f"{settings.serving_workers} workers take as many ports, past {_HIGHEST_PORT}"
            )
            raise SettingsError(message)
        wanted.append(("SERVING_ADMIN_PORT", settings.serving_admin_host, port))
    held = []
    try:
        # Held all at once, so that two of our own that are the same are found too.
        for name, host, port in wanted:
            if (found := bind(host, port)) is None:
                message = (
                    f"CRYPTOML_{name}={port}: {host} already has a listener on this port, or is "
                    "no address of this machine"
                )
                raise SettingsError(message)
            held.append(found)
    finally:
        for each in held:
            each.close()


def check_tls(settings: ServingSettings) -> None:
    """See that certificate and key belong together.

    Raises:
        SettingsError: naming the file that cannot be used.
    """
    certificate, key = settings.serving_tls_certificate, settings.serving_tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        missing = "CERTIFICATE" if certificate is None else "KEY"
        message = (
            f"CRYPTOML_SERVING_TLS_{missing} is empty: TLS takes a certificate and its key, plain "
            "HTTP neither"
        )
        raise SettingsError(message)
    for name, path in {"CERTIFICATE": certificate, "KEY": key}.items():
        if not path.is_file():
            message = f"CRYPTOML_SERVING_TLS_{name}={path}: no such file"
            raise SettingsError(message)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        message = (
            f"CRYPTOML_SERVING_TLS_CERTIFICATE={certificate}: not usable with the key {key}: "
            f"{why}. Accepted: PEM files of a certificate chain and of its key, not encrypted"
        )
        raise SettingsError(message) from error


def oldest_tls(settings: ServingSettings) -> ssl.TLSVersion:
    """The oldest version of TLS that is spoken."""
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    return versions[settings.serving_tls_minimum]
