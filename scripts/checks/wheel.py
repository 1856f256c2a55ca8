"""Checks that a wheel holds every file of the package: `wheel.py WHEEL FOLDER`."""

from __future__ import annotations

import subprocess
import sys
import zipfile


def main(wheel: str, folder: str) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = set(listed.stdout.split("\n")) - {""}
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if name.startswith(f"{folder}/")}
    if missing := sorted(wanted - held):
        sys.exit(f"{wheel} lacks {', '.join(missing)}; see package_data in setup.cfg")
    print(f"the wheel holds all {len(held)} files of the package")


if __name__ == "__main__":
    main(*sys.argv[1:])
