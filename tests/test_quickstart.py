"""The whole job in small, as a user runs it: interrupted, resumed, used, misused. Real processes, real signals."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import mm

pytestmark = pytest.mark.slow
CONFIG = ["--config", "configs/quickstart.py:smoke"]


def mm_main(*args: str, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mm.main", *args]
    return subprocess.run(command, capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished smoke run that was stopped by SIGTERM on its way."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    command = [sys.executable, "-m", "mm.main", *CONFIG, "--workdir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step "):
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait() == 0, rest
    if "saved step" in rest:
        done = mm_main(*CONFIG, "--workdir", str(folder))
        assert "continues after step" in done.stdout
    return folder


def test_it_leaves_what_the_long_run_leaves(run):
    results = json.loads((run / "results.json").read_text())
    cells = results["any_to_any"]
    for a in ("image", "speech", "text"):
        for b in ("image", "speech", "text"):
            if a != b:
                cell = cells[f"{a}->{b}"]
                low, high = cell["interval"]
                assert 0 <= low <= cell["accuracy"] <= high <= 1
                assert "coverage" in cell and len(cell["baselines"]) == 2
                found = results["retrieval"][f"{a}->{b}"]
                assert {"map", "r1", "r5", "r10", "chance"} <= found.keys()
    assert "facts" in cells["image->caption"] and "image+text->speech" in results["retrieval"]
    assert results["judge"]["image"]["real"] > 0.9 and results["judge"]["speech"]["tokenized"] > 0.8
    assert {"image", "speech", "text"} == results["tokenizer"].keys()
    assert {"steps", "seconds", "examples_per_second", "step_ms", "peak_memory_mib"} <= results[
        "train"
    ].keys()
    assert (run / "report" / "index.html").stat().st_size > 10_000


def test_the_same_command_again_says_that_it_is_finished(run):
    assert "finished: 40 steps" in mm_main(*CONFIG, "--workdir", str(run)).stdout


def test_generate_writes_pictures_sounds_and_texts(run, tmp_path):
    arguments = [
        "--mode=generate",
        "--workdir",
        str(run),
        "--input",
        "text=a thin seven, leaning left",
    ]
    said = mm_main(*arguments, "--output", "image,speech", "--out", str(tmp_path / "made")).stdout
    with Image.open(tmp_path / "made" / "image.png") as image:
        assert image.size[0] >= 28
    wave, rate = soundfile.read(tmp_path / "made" / "speech.wav")
    assert rate == 8000 and 0 < len(wave) <= 8000 and str(tmp_path / "made" / "image.png") in said
    back = mm_main(
        "--mode=generate", "--workdir", str(run), "--input", f"image={tmp_path / 'made' / 'image.png'}",
        "--output", "text", "--out", str(tmp_path / "text"),
    )  # fmt: skip
    assert (tmp_path / "text" / "text.txt").read_text().strip() in back.stdout


def test_embed_writes_a_unit_vector(run, tmp_path):
    mm_main("--mode=embed", "--workdir", str(run), "--input", "text=seven", "--out", str(tmp_path))
    assert abs(np.linalg.norm(np.load(tmp_path / "embedding.npy")) - 1) < 1e-3


def test_python_api(run):
    model = mm.load(run)
    z = model.embed(text=["seven", "three"])
    assert z.shape[0] == 2
    images = model.generate("image", text=["seven", "three"], seed=1)
    assert images.shape == (2, 28, 28) and images.dtype == np.uint8
    again = model.generate("image", text=["seven", "three"], seed=1)
    assert np.array_equal(images, again)
    assert model.generate("text", image=images, prompt="[MASK]")[0].count(" ") == 0
    assert model.score("text", ["seven", "three"], image=images).shape == (2,)
    assert model.features(1, image=images).shape[0] == 2
    assert len(model.generate("image", rows=3)) == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--input", "image=nothing.png", "--output", "text"], "nothing.png"),
        (["--input", "smell=a.png", "--output", "text"], "the model has image, speech, text"),
        (["--input", "text=seven", "--output", "taste"], "the model has image, speech, text"),
        (["--input", "text=seven"], "needs --output"),
        (["--input", "text=seven", "--output", "image=a ..."], "only texts take a template"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, args, said):
    done = mm_main(
        "--mode=generate", "--workdir", str(run), "--out", str(tmp_path / "o"), *args, check=False
    )
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_broken_files_of_the_user(run, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "noise.wav").write_bytes(b"RIFFnoise")
    for given in (f"image={tmp_path / 'empty.png'}", f"speech={tmp_path / 'noise.wav'}"):
        done = mm_main(
            "--mode=generate",
            "--workdir",
            str(run),
            "--input",
            given,
            "--output",
            "text",
            check=False,
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_another_tokenizer_in_the_folder_is_refused(run, tmp_path):
    """A checkpoint of another token space: the folder's copy of a tokenizer was exchanged."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("cache"))
    (copy / "tokenizers" / "text.safetensors").write_bytes(
        (copy / "tokenizers" / "image.safetensors").read_bytes()
    )
    done = mm_main("--mode=evaluate", "--workdir", str(copy), check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
