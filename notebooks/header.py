"""What all lessons begin with, written in one place: badges, the way on, the first code cell.

execute.py fills in the lines of a lesson's first cell that end with these marks.
"""

from __future__ import annotations

from pathlib import Path

# "owner/name" on GitHub. As long as it is empty there are no badges: nobody clicks on a dead link.
REPOSITORY = ""
BRANCH = "main"

BADGES = "<!-- badges -->"
WAY = "<!-- way -->"

# What pip installs on Colab, where there is only the notebook. Without an address it is a wheel
# that the reader has uploaded, not what somebody else may publish under the same name.
INSTALL = (
    f'"aimv2-np[notebooks] @ git+https://github.com/{REPOSITORY}"'
    if REPOSITORY
    else "/content/aimv2_np-*.whl  # upload it first: see README.md"
)
SETUP = f"""\
import sys

if "google.colab" in sys.modules:  # elsewhere: pip install '.[notebooks]' in the checkout
    %pip install -q {INSTALL}
"""


def badges(file: str, repository: str = REPOSITORY, branch: str = BRANCH) -> str:
    """The line with the links that open a lesson on Colab and Binder, empty until there is one."""
    if not repository:
        return BADGES
    colab = f"https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/{file}"
    binder = f"https://mybinder.org/v2/gh/{repository}/{branch}?labpath=notebooks/{file}"
    return (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"({colab}) [![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder}) {BADGES}"
    )


def way(file: Path, titles: dict[str, str]) -> str:
    """The line with the links to the lessons before and after, the solutions and the overview.

    `titles`: every lesson's file name and title, in order. What does not exist is not linked.
    """
    names = list(titles)
    here = names.index(file.name)
    links = []
    if here > 0:
        links.append(f"[← {titles[names[here - 1]]}]({names[here - 1]})")
    if (file.parent / "README.md").exists():
        links.append("[all lessons](README.md)")
    solutions = f"solutions/{file.name[:2]}.md"
    if (file.parent / solutions).exists():
        links.append(f"[solutions]({solutions})")
    if here + 1 < len(names):
        links.append(f"[{titles[names[here + 1]]} →]({names[here + 1]})")
    return f"{' · '.join(links)} {WAY}".lstrip()


def filled(source: str, file: Path, titles: dict[str, str]) -> str:
    """The first cell with its marked lines as they should be."""
    made = {BADGES: badges(file.name), WAY: way(file, titles)}
    lines = source.split("\n")
    for i, line in enumerate(lines):
        mark = next((mark for mark in made if line.endswith(mark)), None)
        lines[i] = made[mark] if mark else line
    return "\n".join(lines)
