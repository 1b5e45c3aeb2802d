"""Passwords and keys of the servers, and the places that they must not be in."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What an address must spell as %XX, or a shell, a template or SQL might take for its own.
SPECIAL = "@:/?#[]%41&=+ '\"\\`$;!*"


def secrets_of(variables: Mapping[str, str]) -> set[str]:
    """Every password and secret key that a process on the servers is given, in each spelling.

    Not the id of the S3 key: it is a name, by which a store tells in its log who asks.
    """
    addresses = (urlsplit(value) for value in variables.values() if "://" in value)
    passwords = {parts.password for parts in addresses if parts.password}
    unquoted = {unquote(password) for password in passwords}
    return passwords | unquoted | {variables["AWS_SECRET_ACCESS_KEY"]}


def files_with(folder: Path, words: Iterable[str]) -> list[Path]:
    """Files below a folder in which one of ``words`` stands."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return [f for f in found if any(word.encode() in f.read_bytes() for word in words)]


def command_lines() -> dict[int, str]:
    """The processes of this machine, as anybody on it may list them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            # It ended meanwhile.
            continue
    return found
