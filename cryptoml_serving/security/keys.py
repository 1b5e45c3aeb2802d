"""The file of API keys: what is kept of a key is its name, its roles and its SHA-256.

A key is 256 random bits. Nobody can try them all, so a fast hash is as good as a slow one, which
would only cost each request its time: slow hashes are for passwords, which people choose.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cryptoml_serving.contract.settings import SettingsError
from cryptoml_serving.security.roles import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Begins every key, so that a scanner for secrets knows one where it should not be.
PREFIX: Final = "cml_"
_RANDOM_BYTES = 32
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class KeyFileError(SettingsError):
    """The file of keys cannot be used; the message names it and says why."""


class KeyRecord(BaseModel):
    """One key, without the key.

    Attributes:
        name: who uses it; unique in the file.
        sha256: of the whole key, in hexadecimal digits.
        roles: what it is good for.
        created_at: when it was made.
        rate: requests a second in place of the usual ones; none: the usual ones; 0: no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=rf"^{_NAME}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    created_at: AwareDatetime
    rate: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    keys: tuple[KeyRecord, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for what in ("name", "sha256"):
            values = [getattr(key, what) for key in self.keys]
            if len(set(values)) != len(values):
                message = f"two keys have the same {what}"
                raise ValueError(message)
        return self


def key_digest(key: bytes) -> bytes:
    """What a key or a token is known by, and compared in its place."""
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> tuple[KeyRecord, ...]:
    """The keys of a file.

    Raises:
        KeyFileError: there is none, it is not what this module writes, or others may write it.
    """
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            content = file.read()
    except FileNotFoundError:
        message = f"{path}: no such file of keys; `cryptoml keys add NAME` makes it"
        raise KeyFileError(message) from None
    except OSError as error:
        message = f"{path}: the file of keys cannot be read: {error.strerror}"
        raise KeyFileError(message) from error
    try:
        return _KeyFile.model_validate_json(content).keys
    except ValidationError as error:
        why = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}"
            for each in error.errors(include_input=False)[:3]
        )
        message = f"{path} is no file of keys: {why}"
        raise KeyFileError(message) from None


def add_key(
    path: Path, name: str, *, roles: Iterable[Role], rate: float | None, now: datetime
) -> str:
    """Make a key and add it to a file, which is made where there is none.

    Returns:
        The key. It is nowhere else, and cannot be told again.

    Raises:
        KeyFileError: the name is taken or no name, or the file cannot be used.
    """
    key = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    if re.fullmatch(_NAME, name) is None:
        message = (
            f"{name!r} is no name of a key; accepted: 1 to 64 letters, digits, dots, dashes and "
            "underscores, the first a letter or digit"
        )
        raise KeyFileError(message)
    record = KeyRecord(
        name=name,
        sha256=key_digest(key.encode()).hex(),
        roles=tuple(sorted(set(roles))),
        created_at=now,
        rate=rate,
    )
    with _alone(path):
        kept = read_keys(path) if path.exists() else ()
        if any(each.name == name for each in kept):
            message = f"{path} already has a key named {name!r}: revoke it, or take another name"
            raise KeyFileError(message)
        _write(path, (*kept, record))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file.

    Raises:
        KeyFileError: it has no key of that name, or cannot be used.
    """
    with _alone(path):
        kept = read_keys(path)
        left = tuple(each for each in kept if each.name != name)
        if len(left) == len(kept):
            names = ", ".join(each.name for each in kept) or "none"
            message = f"{path} has no key named {name!r}; there are: {names}"
            raise KeyFileError(message)
        _write(path, left)


def _check_owner(path: Path, found: os.stat_result) -> None:
    """Whoever may write the file may let anybody in."""
    if found.st_mode & _WRITABLE_BY_OTHERS:
        message = f"{path} is writable by others than its owner: chmod 600 it"
        raise KeyFileError(message)
    if found.st_uid not in (0, os.geteuid()):
        message = f"{path} belongs to another user (uid {found.st_uid})"
        raise KeyFileError(message)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have two commands at the same time change the file one after the other."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"{path}: nothing can be written beside it: {error.strerror}"
        raise KeyFileError(message) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, keys: tuple[KeyRecord, ...]) -> None:
    """Replace the file as a whole: a service reads the old one or the new one."""
    content = json.dumps(_KeyFile(keys=keys).model_dump(mode="json"), indent=2) + "\n"
    incoming = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        handle = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        incoming.replace(path)
    except OSError as error:
        message = f"{path}: the file of keys cannot be written: {error.strerror}"
        raise KeyFileError(message) from error
    finally:
        incoming.unlink(missing_ok=True)
