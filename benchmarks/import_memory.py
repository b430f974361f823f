"""python -m benchmarks.import_memory 4m-7-b: how much memory importing one of 4M's models takes, as a multiple of its file.

Writes a file of the model's size and names (each value the same number), imports it as `python -m mm.weights import` does, and
samples the memory that the process holds for itself, 50 times a second. Pages of the file that is read, which the system may take
back at any time, count apart. Both folders are deleted at the end.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from etils import epath

from mm.errors import Parser, exit_code
from mm.weights import m4, m4_modalities, m4_presets


def written(name: str, path: Path) -> int:
    """A file of a released model's form; returns its bytes."""
    settings = m4_presets.model(name)
    space = m4_modalities.preset(name.rsplit("-", 1)[0])
    value = np.float32(0.02)
    flat = {k: np.broadcast_to(value, x.shape) for k, x in m4.shapes(settings, space).items()}
    m4.write(epath.Path(path), flat, settings, space, m4.config_of(settings, space, 224, 16))
    return path.stat().st_size


def imported(path: Path, out: Path) -> dict[str, float]:
    """Peaks in bytes while a process imports the file: `own` and `file` pages; and its `seconds`."""
    began = time.monotonic()
    command = [sys.executable, "-m", "mm.weights", "import", str(path), "--out", str(out)]
    process, peak = subprocess.Popen(command), {"own": 0.0, "file": 0.0}
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        kept = dict(line.split(":", 1) for line in lines)
        for name, key in (("own", "RssAnon"), ("file", "RssFile")):
            peak[name] = max(peak[name], 1024.0 * int(kept.get(key, "0").split()[0]))
        time.sleep(0.02)
    if process.wait():
        raise SystemExit(process.returncode)
    return peak | {"seconds": time.monotonic() - began}


def main() -> int:
    """Prints the figures."""
    parser = Parser(prog="python -m benchmarks.import_memory", description=__doc__)
    parser.add_argument("model", help="4m-7-b, 4m-21-xl, ...")
    parser.add_argument("--folder", help="where both files go, of twice the model's size")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        size = written(options.model, folder / "model.safetensors")
        found = imported(folder / "model.safetensors", folder / "run")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{options.model}: {size / 1e9:.2f} GB; own memory {found['own'] / 1e9:.2f} GB at most, {found['own'] / size:.3f} of the "
        f"file; mapped pages {found['file'] / 1e9:.2f} GB at most; {found['seconds']:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
