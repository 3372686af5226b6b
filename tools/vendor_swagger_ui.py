"""`python -m tools.vendor_swagger_ui [version]`: copies Swagger UI from npm into the package, and records its digests.

Without a version it fetches the recorded one and checks that every file is the same. It needs `npm`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path("service/electra_serve/api/rest/playground/swagger_ui")
RECORD: Final = FOLDER / "vendored.json"
PACKAGE: Final = "swagger-ui-dist"
FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui-bundle.js.LICENSE.txt", "LICENSE", "NOTICE")


def main() -> None:
    """Fetches and writes the files."""
    recorded = json.loads(RECORD.read_text())
    version = sys.argv[1] if len(sys.argv) > 1 else recorded["version"]
    archive, contents = fetch(version)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    record = {"package": PACKAGE, "version": version, "sha256": archive, "files": digests}
    if version == recorded["version"] and record != recorded:
        sys.exit(f"{PACKAGE} {version} differs from {RECORD}")
    for name, content in contents.items():
        (FOLDER / name).write_bytes(content)
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{PACKAGE} {version}: {sum(map(len, contents.values()))} bytes in {FOLDER}")


def fetch(version: str) -> tuple[str, dict[str, bytes]]:
    """Returns the digest of a version's archive, and the contents of its files."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{PACKAGE}@{version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # the maintainer's own argument
        (path,) = Path(folder).iterdir()
        contents = {}
        with tarfile.open(path) as archive:
            for name in FILES:
                member = archive.extractfile(f"package/{name}")
                if member is None:
                    sys.exit(f"{PACKAGE} {version} has no file {name}")
                contents[name] = member.read()
        return hashlib.sha256(path.read_bytes()).hexdigest(), contents


if __name__ == "__main__":
    main()
