"""Installs what mm needs and a hosted notebook lacks, and changes nothing that is there: python colab/install.py

A hosted notebook has a JAX and a NumPy that fit its accelerators. So mm runs from its checkout, without its
dependencies; of these only the ones that are not there at all are installed, while JAX, jaxlib and NumPy are held at
the versions that are there. What is older or newer than mm asks for stays, and is named.
"""

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HELD = ("jax", "jaxlib", "numpy")


def version(name: str) -> str | None:
    """Of an installed package; None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def plan(
    dependencies: Iterable[str], found: Callable[[str], str | None] = version
) -> tuple[list[str], list[str]]:
    """What to install, and what is there in another version than is asked for: requirements, and sentences."""
    missing, other = [], []
    for line in dependencies:
        asked = Requirement(line)
        there = found(asked.name)
        if there is None and asked.name not in HELD:
            missing.append(line)
        elif there is None or not asked.specifier.contains(there, prereleases=True):
            other.append(f"{asked.name} is {there or 'not here'}, mm asks for {asked.specifier}")
    return missing, other


def main() -> None:
    """Prints what it does, and pip's errors; what cannot be had beside the held versions ends it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    missing, other = plan(project["dependencies"])
    print("to be installed:", ", ".join(missing) or "nothing")
    for line in other:
        print(f"left as it is: {line}")
    if missing:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as held:
            held.write("".join(f"{n}=={version(n)}\n" for n in HELD if version(n)))
            held.flush()
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", held.name]
            done = subprocess.run([*pip, *missing], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"pip could not install them beside what is held:\n{done.stderr}")


if __name__ == "__main__":
    main()
