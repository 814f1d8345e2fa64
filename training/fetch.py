"""Fetch the drawings and the names of emoji through npm, as packages.json pins them.

    python fetch.py            # into data/packages

`npm pack` is asked rather than an address, so whichever registry the machine is set up for serves.
packages.json holds each package's version and the SHA-256 of its archive.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from paths import DATA, HERE, PACKAGES

# Trained on: artists whose licence asks for no more than attribution. Those who drew emoji …
EMOJI_SETS = (
    *("noto", "noto-v1"),  # Apache 2.0
    *("fxemoji", "twemoji", "emojione", "emojione-monotone", "streamline-emojis"),  # CC BY 4.0
)
# … and those who drew icons, some of which show what an emoji shows.
ICON_SETS = (
    *("icon-park", "mdi", "mingcute", "la"),  # Apache 2.0
    *("flat-color-icons", "ph", "tabler", "hugeicons", "boxicons", "ion", "iconoir"),  # MIT
    *("lucide", "lucide-lab"),  # ISC
    *("streamline-color", "streamline-cyber-color", "streamline-plump-color"),  # CC BY 4.0
    *("streamline-kameleon-color", "fa6-solid", "solar"),  # CC BY 4.0
    "game-icons",  # CC BY 3.0
)
TRAINED_ON = EMOJI_SETS + ICON_SETS
VALIDATION = "openmoji"  # CC BY-SA 4.0: looked at, never trained on


def fetch(npm: str, package: str, digest: str) -> Path:
    """One package, unpacked into data/packages under its short name; kept if it is there."""
    name, version = package.rsplit("@", 1)
    folder = PACKAGES / name.rsplit("/")[-1]
    if folder.exists():
        if json.loads((folder / "package.json").read_text())["version"] == version:
            return folder
        shutil.rmtree(folder)
    with tempfile.TemporaryDirectory(dir=DATA) as scratch:
        command = [npm, "pack", "--silent", "--pack-destination", scratch, package]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).glob("*.tgz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != digest:
            sys.exit(f"{package}: the archive's SHA-256 is {found}, expected {digest}")
        with tarfile.open(archive) as file:
            file.extractall(scratch, filter="data")
        shutil.move(Path(scratch) / "package", folder)  # whole, or not at all
    return folder


def main() -> None:
    """Fetch what is missing."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is needed: it comes with Node.js (Debian: apt install npm)")
    PACKAGES.mkdir(parents=True, exist_ok=True)
    digests = json.loads((HERE / "packages.json").read_text())
    for package, digest in digests.items():
        print(f"{package:40} {fetch(npm, package, digest).name}", flush=True)


if __name__ == "__main__":
    main()
