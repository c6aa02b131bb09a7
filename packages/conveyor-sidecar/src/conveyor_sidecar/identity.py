"""Who this sidecar is: its id, kept on disk, and the lock that keeps others out of its directory.

A sidecar's identity outlives its process. Router and peers know it by ``sidecar_id``; what tells
one life from the next is the boot id, drawn anew at each start and never written down. Terms, lanes
and position commits of an earlier boot are refused by it.

The directory belongs to one process at a time. The lock is ``flock`` on a file that is never
removed: the kernel releases it when the process ends, however it ends, so no stale lock can remain.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import uuid
from pathlib import Path
from typing import IO, Self

from conveyor_sidecar.errors import DataDirectoryError

_ID_GRAMMAR = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ID_FILE = "sidecar-id"
_LOCK_FILE = "lock"


class DataDirectory:
    """The sidecar's own directory: opened, locked, and asked for the identity kept in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def dead_letters(self) -> Path:
        """Where the dead letters live, one folder per pipeline."""
        return self.path / "dead-letters"

    def open(self) -> None:
        """Create the directory if need be and take its lock.

        Raises:
            DataDirectoryError: it cannot be written, or another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / _LOCK_FILE).open("a+")
        except OSError as error:
            raise DataDirectoryError(
                f"data directory {self.path} cannot be used: {error.strerror or error}; "
                "set CONVEYOR_DATA_DIR to a directory that this user may write"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(handle)
            handle.close()
            raise DataDirectoryError(
                f"data directory {self.path} is in use by another sidecar{holder}; "
                "give this one its own CONVEYOR_DATA_DIR, or stop the other"
            ) from error
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        self._lock = handle

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. Safe to call twice."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def sidecar_id(self, configured: str | None) -> str:
        """The configured id, else the one kept here, else a fresh UUID that is kept from now on.

        Raises:
            DataDirectoryError: the kept id is damaged or cannot be written.
        """
        if configured:
            return configured
        path = self.path / _ID_FILE
        try:
            kept = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return self._keep(path, str(uuid.uuid4()))
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirectoryError(f"{path} cannot be read: {error}") from error
        if not _ID_GRAMMAR.fullmatch(kept):
            raise DataDirectoryError(
                f"{path} does not hold a sidecar id; set SIDECAR_ID, or remove the file to be "
                "given a new identity"
            )
        return kept

    def _keep(self, path: Path, sidecar_id: str) -> str:
        """Write the id so that a crash leaves the whole of it or nothing."""
        temporary = path.with_suffix(".new")
        try:
            with temporary.open("w", encoding="utf-8") as handle:
                handle.write(sidecar_id + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
            sync_directory(self.path)
        except OSError as error:
            raise DataDirectoryError(f"{path} cannot be written: {error}") from error
        return sidecar_id


def new_boot_id() -> int:
    """A number that no other start of any sidecar has: 63 random bits, never 0."""
    return secrets.randbits(63) | 1


def sync_directory(path: Path) -> None:
    """Make the directory's own entries (new, renamed, removed files) durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _holder(handle: IO[str]) -> str:
    """Best effort: the process id that the present holder wrote into the lock file."""
    with contextlib.suppress(OSError, ValueError):
        handle.seek(0)
        return f" (process {int(handle.read(32))})"
    return ""
