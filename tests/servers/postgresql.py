"""A PostgreSQL of its own, in a temporary folder, on a Unix socket, as an unprivileged user."""

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

_USERS = ("postgres", "nobody")


def _folder_of_programs() -> Path | None:
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(found) if (folder / "pg_ctl").exists()), None)


def missing() -> str:
    """Why there can be none here; empty if there can."""
    if _folder_of_programs() is None:
        return "no PostgreSQL (initdb, pg_ctl) on this machine"
    if find_spec("psycopg") is None:
        return "not installed: psycopg (extra servers)"
    return ""


class PostgreSQL:
    """A running one; ``address`` is the connection string."""

    def __init__(self) -> None:
        programs = _folder_of_programs()
        assert programs is not None
        self._programs = programs
        # PostgreSQL refuses to run as root.
        self._user = _unprivileged_user() if os.getuid() == 0 else None
        self.folder = Path(
            tempfile.mkdtemp(prefix="hostline-pg-")
        )  # short: a socket's path has 107 characters
        try:
            if self._user is not None:
                os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
            self._run("initdb", "--auth=trust", "--username=hostline", "--no-sync")
            options = f"-c listen_addresses= -c fsync=off -k {self.folder}"
            self._run("pg_ctl", "start", "--wait", f"--log={self.folder}/log", f"--options={options}")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.address = f"host={self.folder} user=hostline dbname=postgres"

    def stop(self) -> None:
        """End it and remove its folder."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *options: str) -> None:
        user = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid}
        subprocess.run(
            [self._programs / program, f"--pgdata={self.folder}/data", *options],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # not a pipe: the server would inherit it and keep it open
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            extra_groups=[] if user else None,
            **user,
        )


def _unprivileged_user() -> pwd.struct_passwd:
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise LookupError(f"none of the users {', '.join(_USERS)} is on this machine")
