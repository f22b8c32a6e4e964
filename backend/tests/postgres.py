"""A real PostgreSQL for tests: a server of its own in a temporary folder, on a Unix socket, without a network port."""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

PASSWORD = "planted-journal-password"
"""The server asks for it, and no output may ever show it."""
WITHIN_S = 60
HOMES = "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin"
SERVER_USERS = "postgres", "nobody"
"""PostgreSQL refuses to run as root (https://www.postgresql.org/docs/current/postgres-user.html)."""


@functools.cache
def find_postgres() -> Path | None:
    """The folder of the newest `initdb` and `pg_ctl` on this machine."""
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    folders = [folder for home in HOMES for folder in Path("/").glob(home[1:]) if (folder / "pg_ctl").exists()]
    return max(folders, key=_version, default=None)


def _version(folder: Path) -> list[int]:
    return [int(part) for part in "".join(c if c.isdigit() else " " for c in str(folder)).split()]


class Postgres:
    """One server, for a `with` block."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Short, and open to the server's user: a socket's path has at most 107 characters, and pytest's folders are
        # closed to others.
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._data = self._folder / "data"
        self._names = itertools.count(1)
        self._user = _server_user()
        if self._user is not None:
            shutil.chown(self._folder, self._user)

    def __enter__(self) -> Postgres:
        (password := self._folder / "password").write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "--no-sync", "--auth=scram-sha-256", "--username=shop", f"--pwfile={password}", "-E", "UTF8"
        )
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        # Nothing outlives the machine here, so nothing needs to reach its disk.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._folder / 'log'}", "--options", options)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", mode)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"shop{next(self._names)}"
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return f"postgresql://shop:{PASSWORD}@/{name}?host={self._folder}"

    def sql(self, statement: str, database: str) -> str:
        """What psql prints of one statement in a database, or the one of a URL: bare values, a line for each row."""
        settings = "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"
        server = "--host", str(self._folder), "--username", "shop", "--dbname", database
        return self._run("psql", *settings, *server, "--command", statement).strip()

    def _run(self, program: str, *arguments: str) -> str:
        # A file: pg_ctl leaves the server behind, which would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out:
            ran = subprocess.run(
                [self._programs / program, *arguments],
                env={**os.environ, "PGDATA": str(self._data), "PGPASSWORD": PASSWORD, "LC_ALL": "C"},
                cwd=self._folder,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=WITHIN_S,
                check=False,
            )
            out.seek(0)
            said = out.read()
        assert ran.returncode == 0, f"{program} {' '.join(arguments)}: {said}"
        return said


def _server_user() -> str | None:
    """Whom the server runs as when the tests run as root."""
    if os.geteuid() != 0:
        return None
    return next(user for user in SERVER_USERS if user in {entry.pw_name for entry in pwd.getpwall()})
