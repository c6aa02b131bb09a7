"""Put the `.proto` files beside the modules generated from them, for services in other languages.

In the repository they stand in `proto/` at the root; in a source distribution in its own `proto/`.
With the wheel's folder on protoc's path (`-I site-packages`), `import
"conveyor_sdk/wire/record.proto"` works.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WIRE = Path("conveyor_sdk") / "wire"


class ProtoFiles(BuildHookInterface):
    """The hook that hatchling finds in this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to what is built; an editable install reads them in the repository."""
        if version == "editable":
            return
        root = Path(self.root)
        for proto in (root / "proto", root.parent.parent / "proto"):
            for path in sorted((proto / WIRE).glob("*.proto")):
                place = WIRE if self.target_name == "wheel" else "proto" / WIRE
                build_data["force_include"][str(path)] = str(place / path.name)
            if (proto / WIRE).is_dir():
                return
        raise FileNotFoundError(f"the .proto files are neither in {root} nor in the repository")
