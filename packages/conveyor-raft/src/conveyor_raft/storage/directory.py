"""The data directory itself: made durably, and used by one process at a time.

Rules kept: the lock is the kernel's (`flock`), so it ends with the process however it ends, and a
lock file that was left behind never keeps a node from starting.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from conveyor_raft.errors import Failed, Locked
from conveyor_raft.storage.hard_state import fsync_directory


def make_directory(path: Path) -> None:
    """Make the directory and its parents, for the owner alone, and make the names durable.

    Raises:
        Failed: it cannot be made, or cannot be written.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            fsync_directory(folder.parent)
    except OSError as error:
        raise Failed(f"cannot make the data directory {path}: {error}") from error
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        raise Failed(f"{path} is not a directory that this process may write; correct it")


class DirectoryLock:
    """An exclusive lock on a directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "LOCK"
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `Locked` naming the process that has it."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise Locked(
                f"{self._path.parent} is in use by the process {owner};"
                " stop it, or give this node a data directory of its own"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._handle = handle

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
