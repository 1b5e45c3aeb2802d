"""What callers may do, and who they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Role(StrEnum):
    """What a credential is good for; an admin may predict too."""

    PREDICT = "predict"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key, or subject of the token; for logs.
        roles: everything it may do.
    """

    name: str
    roles: frozenset[Role]


#: Who asks where no authentication is configured: only this machine can.
ANONYMOUS = Caller("anonymous", frozenset(Role))


def granted(names: Iterable[str]) -> frozenset[Role]:
    """The roles among ``names`` with what they include; names of other things are passed over."""
    known = {Role(name) for name in names if name in Role.__members__.values()}
    return frozenset(Role) if Role.ADMIN in known else frozenset(known)
