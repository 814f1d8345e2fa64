"""Fetch the drawings and the names of emoji through npm, at pinned versions, checked by digest.

    python fetch.py            # about 16 MB, into data/packages

`npm pack` is asked rather than an address, so whichever registry the machine is set up for serves.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

DATA = Path(__file__).parent / "data"
PACKAGES = DATA / "packages"

# The artists whose licence asks for no more than attribution: trained on.
TRAINED_ON = (
    *("noto", "noto-v1", "fxemoji"),  # Apache 2.0
    *("twemoji", "emojione", "emojione-monotone", "streamline-emojis"),  # CC BY 4.0
)
VALIDATION = "openmoji"  # CC BY-SA 4.0: looked at, never trained on

_DIGESTS = {  # SHA-256 of the archives
    "@iconify-json/noto@1.2.9": "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "@iconify-json/noto-v1@1.2.5": "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    "@iconify-json/twemoji@1.2.5": "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    "@iconify-json/emojione@1.2.3": "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    "@iconify-json/emojione-monotone@1.2.1": "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
    "@iconify-json/fxemoji@1.2.2": "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    "@iconify-json/streamline-emojis@1.2.4": "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
    "@iconify-json/openmoji@1.2.29": "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
}


def fetch(package: str, digest: str) -> Path:
    """One package, unpacked into data/packages under its short name; kept if it is there."""
    folder = PACKAGES / package.rsplit("@", 1)[0].rsplit("/")[-1]
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=DATA) as scratch:
        command = ["npm", "pack", "--silent", "--pack-destination", scratch, package]
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
    if shutil.which("npm") is None:
        sys.exit("npm is needed: it comes with Node.js (Debian: apt install npm)")
    PACKAGES.mkdir(parents=True, exist_ok=True)
    for package, digest in _DIGESTS.items():
        print(f"{package:40} {fetch(package, digest).name}", flush=True)


if __name__ == "__main__":
    main()
