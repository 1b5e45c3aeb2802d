"""The workers of the inference service, each at its own admin port."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import httpx

from cryptoml_assets.monitoring.inference import key_header


@dataclass(frozen=True)
class Worker:
    """One of them.

    Attributes:
        url: its address.
        name: host that was asked for where ``url`` has one of its addresses instead; empty: none.
        authority: PEM file of those who may vouch for its certificate; empty: public authorities.
    """

    url: str
    name: str = ""
    authority: str = ""

    def ask(
        self, method: Literal["GET", "POST"], path: str, *, key: str, timeout: float
    ) -> httpx.Response:
        """Its answer.

        Args:
            method: of HTTP.
            path: of the route, with the slash.
            key: API key of the service; none is sent when empty.
            timeout: longest wait, seconds.

        Raises:
            httpx.HTTPError: it does not answer, or with an error; or nobody can vouch for it.
            httpx.InvalidURL: ``url`` is none.
        """
        headers, extensions = key_header(key), {}
        if self.name:
            # A certificate is for the name, not for the address.
            headers["Host"] = extensions["sni_hostname"] = self.name
        # The service is our own: no proxy of the environment stands before it.
        with httpx.Client(trust_env=False, timeout=timeout, verify=self._trust()) as client:
            address = f"{self.url.rstrip('/')}{path}"
            answer = client.request(method, address, headers=headers, extensions=extensions)
            return answer.raise_for_status()

    def _trust(self) -> ssl.SSLContext | bool:
        if not self.authority:
            return True
        try:
            return ssl.create_default_context(cafile=self.authority)
        except OSError as error:
            message = f"CRYPTOML_INFERENCE_CA_FILE={self.authority}: {error}; accepted: a PEM file"
            raise httpx.ConnectError(message) from error


def workers(urls: Iterable[str], authority: str = "") -> list[Worker]:
    """The workers at some addresses.

    A name that stands for several machines, as a headless service of Kubernetes does for its pods,
    stands for a worker at each of them. One that is not known now stands for itself, so that who
    asks is told.

    Args:
        urls: of admin ports.
        authority: of each worker.
    """
    return [worker for url in urls for worker in _of(url, authority)]


def _of(url: str, authority: str) -> Iterator[Worker]:
    try:
        asked = httpx.URL(url)
    except httpx.InvalidURL:
        asked = httpx.URL("")
    found = _addresses(asked.host)
    if not found[1:]:
        yield Worker(url, authority=authority)
        return
    for address in found:
        yield Worker(str(asked.copy_with(host=address)), asked.host, authority)


def _addresses(host: str) -> list[str]:
    """Where a host is, sorted: by IPv4 alone where it is there by both, and so once."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            found = socket.getaddrinfo(host or None, None, family, socket.SOCK_STREAM)
        except OSError:
            continue
        return sorted({str(each[4][0]) for each in found})
    return []
