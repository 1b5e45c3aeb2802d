"""The signed deployment: which versions may serve now, in which role, as of which decision.

It says in one small document what the table of decisions says in full, and lies where serving looks
anyway: in a tag of the registered model. Serving follows it and not the alias, which anybody who
can write to the registry can move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from cryptoml_serving.contract.approval import (
    ApprovalInvalidError,
    read_signed,
    sign_document,
    verify_document,
    write_signed,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SCHEMA_VERSION = 1
#: Most withdrawn versions that a deployment names: a registry's tag has room for 5,000 characters.
MOST_WITHDRAWN = 64
_DIGEST = r"^[0-9a-f]{64}$"


class Placement(BaseModel):
    """One version and what it may do; ``percent`` of the requests are a canary's, else 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_version: str = Field(pattern=r"^[0-9]+$")
    bundle_digest: str = Field(pattern=_DIGEST)
    run_id: str
    role: Literal["champion", "shadow", "canary"]
    percent: FiniteFloat = Field(0.0, ge=0, lt=100)

    @property
    def subject(self) -> tuple[str, str]:
        """Version and digest: what is placed, in whatever role."""
        return self.model_version, self.bundle_digest


class Deployment(BaseModel):
    """What serves, as of one decision.

    ``sequence`` is the number of that decision and ``head`` the digest of its entry: a later
    deployment never has a lower one. ``withdrawn`` names the versions that were taken back, the
    last one at the end: they answer no more, even where what came after them cannot be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = SCHEMA_VERSION
    model_name: str
    sequence: int = Field(ge=0)
    head: str = Field(pattern=_DIGEST)
    champion: Placement | None
    challengers: tuple[Placement, ...] = ()
    #: Left out where it is empty, as in documents that were signed before there was such a list.
    withdrawn: tuple[str, ...] = Field(
        (), max_length=MOST_WITHDRAWN, exclude_if=lambda versions: not versions
    )

    @model_validator(mode="after")
    def _roles_are_one_each(self) -> Self:
        if self.champion is not None and self.champion.role != "champion":
            message = f"the champion is placed as {self.champion.role}"
            raise ValueError(message)
        if any(each.role == "champion" for each in self.challengers):
            message = "a challenger is placed as champion"
            raise ValueError(message)
        versions = [each.model_version for each in self.placements]
        if len(set(versions)) != len(versions):
            message = f"a version is placed twice: {', '.join(versions)}"
            raise ValueError(message)
        if both := sorted({*versions} & {*self.withdrawn}):
            message = f"a version is placed and withdrawn: {', '.join(both)}"
            raise ValueError(message)
        if sum(each.percent for each in self.challengers) >= 100:  # noqa: PLR2004 - percent
            message = "canaries would leave the champion nothing to answer"
            raise ValueError(message)
        return self

    @property
    def placements(self) -> tuple[Placement, ...]:
        """All versions that may do anything, the champion first."""
        return (*(() if self.champion is None else (self.champion,)), *self.challengers)


def sign_deployment(deployment: Deployment, private_key: Ed25519PrivateKey) -> str:
    """The text of the registry's tag."""
    return write_signed(sign_document(deployment, private_key)).decode()


def read_deployment(text: str, public_key: Ed25519PublicKey) -> Deployment:
    """What a tag's text says, if this key signed exactly it.

    Raises:
        ApprovalInvalidError: in every other case.
    """
    deployment = verify_document(read_signed(text.encode()), public_key, Deployment)
    if deployment.schema_version != SCHEMA_VERSION:
        message = f"deployment schema {deployment.schema_version}; this code reads {SCHEMA_VERSION}"
        raise ApprovalInvalidError(message)
    return deployment
