"""The settings of who may ask, over what, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cryptoml_serving.contract.settings import EnvironmentSettings


def _file(value: object) -> object:
    return None if value == "" else value


File = Annotated[Path | None, BeforeValidator(_file)]


class SecuritySettings(EnvironmentSettings):
    """What surrounds the routes of the inference service."""

    serving_workers: int = Field(
        1,
        description="worker processes that share the port, each with a copy of the models",
        ge=1,
        le=64,
    )
    serving_admin_host: str = Field(
        "127.0.0.1", description="address the admin routes listen on", min_length=1
    )
    serving_admin_port: int = Field(
        8001,
        description="port of the admin routes of the first worker, each further one takes the "
        "next; 0: no admin routes",
        ge=0,
        le=65535,
    )
    serving_keys: File = Field(
        None, description="file of API keys, as `cryptoml keys` writes it; empty: none"
    )
    serving_rate_limit: float = Field(
        1000.0,
        description="requests a second that each key or subject of tokens may send to one worker; "
        "0: no limit",
        ge=0,
        allow_inf_nan=False,
    )
    serving_jwt_issuer: str = Field(
        "",
        description="https:// address of the OpenID issuer whose tokens are accepted; empty: none",
    )
    serving_jwt_audience: str = Field(
        "", description="audience that a token must be for; needed with an issuer"
    )
    serving_jwks_url: str = Field(
        "",
        description="https:// address of the issuer's keys; empty: as its "
        ".well-known/openid-configuration says",
    )
    serving_jwt_roles: str = Field(
        "roles",
        description="claim of a token with its roles, predict or admin; dots lead into it, e.g. "
        "realm_access.roles",
        min_length=1,
    )
    serving_tls_certificate: File = Field(
        None, description="PEM file with the certificate chain; empty: plain HTTP"
    )
    serving_tls_key: File = Field(
        None, description="PEM file with the certificate's private key; needed with a certificate"
    )
    serving_tls_minimum: Literal["1.2", "1.3"] = Field(
        "1.3", description="oldest version of TLS that is spoken, 1.2 or 1.3"
    )
