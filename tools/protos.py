"""Generate the Python modules of every .proto file, each into the package that owns it.

The path of a file below `proto/` is the import path of its module, so
`proto/conveyor_raft/wire/raft.proto` becomes
`packages/conveyor-raft/src/conveyor_raft/wire/raft_pb2.py` and friends.

    python tools/protos.py            write the modules
    python tools/protos.py --check    fail if a committed module differs from what would be written
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def source_dir(package: str) -> Path:
    """Return the `src` folder of the distribution whose import name is `package`."""
    return ROOT / "packages" / package.replace("_", "-") / "src"


def generate(target: Path) -> None:
    """Write all generated modules below `target`, laid out by import path."""
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs, *files]
    subprocess.run(command, check=True, cwd=ROOT)
    for path in list(target.rglob("*_pb2_grpc.py")):
        # A file without services needs no service module.
        proto = PROTO / path.relative_to(target).with_name(
            path.name.replace("_pb2_grpc.py", ".proto")
        )
        if "\nservice " not in proto.read_text():
            path.unlink()
            path.with_suffix(".pyi").unlink(missing_ok=True)


def generated_files(base: Path) -> set[Path]:
    """Return the paths, relative to `base`, of the generated modules below it."""
    return {
        path.relative_to(base) for path in base.rglob("*_pb2*") if path.name.endswith(GENERATED)
    }


def committed() -> dict[Path, Path]:
    """Map each import path of a committed generated module to the file."""
    found: dict[Path, Path] = {}
    for src in (ROOT / "packages").glob("*/src"):
        found.update({relative: src / relative for relative in generated_files(src)})
    return found


def main() -> int:
    """Run the generator; return the exit code."""
    check = "--check" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        generate(target)
        fresh = generated_files(target)
        present = committed()
        stale = sorted(
            str(path)
            for path in fresh | set(present)
            if path not in fresh
            or path not in present
            or not filecmp.cmp(target / path, present[path], shallow=False)
        )
        if check:
            for path in stale:
                print(f"stale: {path} (run: nox -s proto)", file=sys.stderr)
            return 1 if stale else 0
        for path in present.values():
            path.unlink()
        for path in fresh:
            destination = source_dir(path.parts[0]) / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target / path, destination)
        print(f"{len(fresh)} modules written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
