"""A sidecar keeps its name over restarts, and its directory to itself."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from conveyor_sidecar.errors import DataDirectoryError
from conveyor_sidecar.identity import DataDirectory, new_boot_id


def test_a_generated_id_is_a_uuid_that_survives_a_restart(tmp_path: Path) -> None:
    """The same directory gives the same sidecar id, life after life."""
    directory = DataDirectory(tmp_path / "data")
    directory.open()
    first = directory.sidecar_id(None)
    directory.close()
    uuid.UUID(first)
    again = DataDirectory(tmp_path / "data")
    again.open()
    assert again.sidecar_id(None) == first
    assert again.sidecar_id("sidecar-pod-abc") == "sidecar-pod-abc"
    again.close()


def test_a_locked_directory_is_refused_with_the_holder_and_the_remedy(tmp_path: Path) -> None:
    """Two sidecars never share a directory."""
    first = DataDirectory(tmp_path)
    first.open()
    with pytest.raises(DataDirectoryError, match=r"in use by another sidecar \(process \d+\)"):
        DataDirectory(tmp_path).open()
    first.close()
    second = DataDirectory(tmp_path)
    second.open()
    second.close()


def test_a_damaged_id_file_is_refused(tmp_path: Path) -> None:
    """A half-written or foreign id file never becomes an identity."""
    (tmp_path / "sidecar-id").write_text("\x00\x00", encoding="utf-8")
    directory = DataDirectory(tmp_path)
    directory.open()
    with pytest.raises(DataDirectoryError, match="does not hold a sidecar id"):
        directory.sidecar_id(None)
    directory.close()


def test_an_unusable_path_is_a_clear_error(tmp_path: Path) -> None:
    """A file where the directory should be says what to set."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataDirectoryError, match="CONVEYOR_DATA_DIR"):
        DataDirectory(tmp_path / "file").open()


def test_boot_ids_differ_and_fit_a_signed_64_bit_integer() -> None:
    """Each start has its own number, never 0."""
    ids = {new_boot_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(0 < boot_id < 2**63 for boot_id in ids)
