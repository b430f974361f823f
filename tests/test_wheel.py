"""The wheel in a clean environment, far from the checkout: the model that ships with mm, without any recipe.

Needs `uv`, and a package index (or uv's cache of one).
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import soundfile
from PIL import Image
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
UV = os.environ.get("UV") or shutil.which("uv")  # `uv run` says where it is itself
LARGEST = 16e6  # bytes; the three tokenizers and one model take half of it

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(UV is None, reason="needs uv"),
]

USE = """
import importlib.util, json, sys
import mm
model = mm.load()
images = model.generate("image", text=["a thick three", "seven"], seed=1)
words = model.generate("text", image=images, prompt="a ...")
z = model.embed(image=images)
recipes = [n for n in ("configs", "data_pipelines", "tests") if importlib.util.find_spec(n)]
print(json.dumps({
    "file": mm.__file__, "images": [list(images.shape), str(images.dtype)], "words": words,
    "z": list(z.shape), "recipes": recipes, "modules": list(sys.modules),
}))
"""


def run(*command, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """In an environment that says nothing of this one."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, env=own, capture_output=True, text=True
    )


def done(*command, cwd: Path = ROOT) -> str:
    ran = run(*command, cwd=cwd)
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-1000:]}\n{ran.stderr[-3000:]}"
    return ran.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    done(UV, "build", "--out-dir", folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The interpreter of a clean environment that holds the wheel and what it depends on, in the tested versions."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    done(UV, "venv", "--python", sys.executable, folder)
    found = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pins = ROOT / "requirements.lock"
    done(UV, "pip", "install", "--python", found, "--constraint", pins, wheel)
    return found


def spoken_by(model: Path) -> set[str]:
    """The tokenizers' files that an exported model names."""
    with safe_open(model, framework="numpy") as f:
        settings = json.loads(f.metadata()["config"])
    return {reference.partition("#")[0] for reference in settings["tokenizers"].values()}


def test_it_holds_mm_its_models_and_their_tokenizers_alone(wheel):
    assert wheel.stat().st_size < LARGEST
    shipped = PurePosixPath("mm/weights/shipped")
    with zipfile.ZipFile(wheel) as archive:
        files = {PurePosixPath(n) for n in archive.namelist()}
    of_mm = {f for f in files if f.parts[0] == "mm"}
    assert {f.parts[0] for f in files} == {"mm", f"mm-{wheel.name.split('-')[1]}.dist-info"}
    assert {f for f in of_mm if f.suffix == ".py"} == {
        PurePosixPath(p.relative_to(ROOT).as_posix()) for p in (ROOT / "mm").rglob("*.py")
    }
    data = {f for f in of_mm if f.suffix != ".py"}
    models = sorted((ROOT / shipped).glob("*.safetensors"))
    cards = (ROOT / shipped).glob("*.md")
    wanted = {shipped / p.name for p in (*models, *cards)}
    wanted |= {shipped / name for model in models for name in spoken_by(model)}
    assert models and data == wanted
    assert any(f.name == "NOTICE" for f in files), "the weights keep the licences of their data"


def test_the_sdist_builds_the_wheel_that_the_checkout_builds(dist, wheel, tmp_path):
    done(UV, "build", "--wheel", "--out-dir", tmp_path)
    (straight,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as a, zipfile.ZipFile(straight) as b:
        contents = [{i.filename: i.CRC for i in archive.infolist()} for archive in (a, b)]
    assert contents[0] == contents[1]
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        rooms = {PurePosixPath(n).parts[1] for n in archive.getnames()}
    assert not rooms & {"tests", "data_pipelines", "configs", "docs", "colab"}


def test_the_model_that_ships_with_it(python, tmp_path):
    said = json.loads(done(python, "-c", USE, cwd=tmp_path).splitlines()[-1])
    assert "site-packages" in Path(said["file"]).parts and not said["recipes"]
    assert said["images"] == [[2, 28, 28], "uint8"] and said["z"][0] == 2
    assert len(said["words"]) == 2 and all(w.startswith("a ") for w in said["words"])
    assert not {"tensorflow", "torch"} & set(said["modules"])
    assert list(tmp_path.iterdir()) == [], "nothing is written where nobody asked"


def test_the_command_line(python, tmp_path):
    ask = ("--mode=generate", "--input", "text=a thick three", "--output", "image,speech")
    done(python, "-m", "mm.main", *ask, cwd=tmp_path)
    wide, high = Image.open(tmp_path / "generated/image.png").size
    assert wide == high >= 28
    samples, rate = soundfile.read(tmp_path / "generated/speech.wav")
    assert rate == 8000 and len(samples) > 800
    done(python, "-m", "mm.main", "--help", cwd=tmp_path)


def test_a_recipe_needs_a_checkout_and_says_so_in_one_line(python, tmp_path):
    missing = run(python, "-m", "mm.main", "--config", "configs/quickstart.py", cwd=tmp_path)
    away = run(python, "-m", "mm.main", "--config", ROOT / "configs/quickstart.py", cwd=tmp_path)
    for ran, said in (
        (missing, "configs/quickstart.py: no such file"),
        (away, "needs 'data_pipelines'"),
    ):
        assert ran.returncode == 2 and ran.stderr.count("\n") == 1, ran.stderr[-1000:]
        assert said in ran.stderr and "run from" in ran.stderr
    assert list(tmp_path.iterdir()) == []
