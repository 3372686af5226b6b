"""Generates the gRPC stubs, or checks that those checked in are up to date.

The protos are mapped to the package path of the stubs, so that the generated imports are right as they are:
nothing is rewritten afterwards.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path("protos")
SOURCES = Path("service")
PACKAGE = Path("electra_serve/proto")


def generate(root: Path) -> None:
    """Writes the stubs of every proto below `root`, in the path of `PACKAGE`."""
    well_known = files("grpc_tools") / "_proto"
    options = [f"-I{PACKAGE}={PROTOS}", f"-I{well_known}", f"--python_out={root}", f"--grpc_python_out={root}"]
    options += [f"--mypy_out={root}", f"--mypy_grpc_out={root}"]
    for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc"):
        options.append(f"--plugin={plugin}={Path(sys.executable).parent / plugin}")
    protos = [str(PACKAGE / proto.relative_to(PROTOS)) for proto in sorted(PROTOS.rglob("*.proto"))]
    if protoc.main(["protoc", *options, *protos]) != 0:
        sys.exit("protoc failed")


def stale(root: Path) -> list[Path]:
    """The stubs that differ from what `generate` wrote below `root`."""
    fresh = {path.relative_to(root) for path in root.rglob("*_pb2*")}
    kept = {path.relative_to(SOURCES) for path in (SOURCES / PACKAGE).rglob("*_pb2*") if path.suffix in (".py", ".pyi")}
    changed = {path for path in fresh & kept if (root / path).read_bytes() != (SOURCES / path).read_bytes()}
    return sorted(changed | (fresh ^ kept))


def main() -> None:
    """Generates; with `--check` only compares."""
    if "--check" not in sys.argv[1:]:
        generate(SOURCES)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if different := stale(Path(folder)):
            sys.exit(f"stubs are not up to date, run `make stubs`: {', '.join(map(str, different))}")


if __name__ == "__main__":
    main()
