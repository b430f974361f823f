"""A small run's folder with everything that a page can show."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import mm
from mm.config import Data, Experiment, to_json

CELL = {
    "accuracy": 0.913, "interval": [0.89, 0.93], "samples": 1000, "inputs": 300,
    "source_rows": "clean",
    "coverage": 0.71, "coverage_real": 0.86, "coverage_ratio": 0.826, "diversity": 1.1,
    "diversity_real": None, "frechet": 0.02, "frechet_real": 0.01, "nearest_train": 0.5,
    "nearest_train_real": 0.6,
    "baselines": {"class_mean_item": {"accuracy": 0.88, "coverage": 0.03}},
    "facts": {
        "mean": 0.7, "interval": [0.6, 0.8], "mean_most_frequent": 0.4, "all": 0.5,
        "each": {"size": {"accuracy": 0.7, "interval": [0.6, 0.8], "most_frequent": 0.4}},
    },
}  # fmt: skip
RETRIEVAL = {
    "map": 0.93, "interval": [0.91, 0.95], "r1": 0.9, "r5": 0.97, "r10": 0.98, "queries": 300,
    "gallery": 2000, "chance": {"map": 0.1, "r1": 0.1, "r5": 0.4, "r10": 0.6},
}  # fmt: skip


def keep_shown(folder: Path) -> None:
    """Neighbours, reconstructions and embeddings, as evaluators keep them."""
    (folder / "words").mkdir(parents=True)
    for i in range(3):
        (folder / f"words/{i}.txt").write_text(f"word {i}")
    files = [f"words/{i}.txt" for i in range(3)]
    rows = [
        {"direction": "words->words", "query": files[:2], "group": 1, "right": right,
         "found": files, "groups": [1 if right else 2, 1, 3]}
        for right in (True, False)
    ]  # fmt: skip
    (folder / "neighbours.json").write_text(json.dumps({"rows": rows}))
    kept = {"words": {"real": files, "tokenized": files[::-1]}}
    (folder / "reconstructions.json").write_text(json.dumps(kept))
    z = np.random.default_rng(0).normal(size=(2, 20, 5)).astype(np.float16)
    group = np.arange(20, dtype=np.int32) % 4
    arrays = {"z/words": z[0], "z/sounds": z[1], "group/words": group, "group/sounds": group}
    np.savez(folder / "embeddings.npz", allow_pickle=False, **arrays)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    for i in range(7):
        Image.fromarray(np.full((9, 9), 30 * i, np.uint8)).save(tmp_path / f"samples/{i}.png")
        tone = np.sin(np.arange(4000) * 0.1 * (i + 1))
        soundfile.write(tmp_path / f"samples/{i}.wav", tone, 8000, subtype="PCM_16")
        (tmp_path / f"samples/{i}.txt").write_text(f"<b>text & {i}")
    files = {k: [f"{i}.{k}" for i in range(7)] for k in ("png", "wav", "txt")}
    rows = [
        {"source": a, "target": b, "source_files": files[x], "files": files[y],
         "group": [1] * 7, "recognised": [1, 1, 2, 1, 1, -1, 1]}
        for a, x, b, y in (("pictures", "png", "sounds", "wav"), ("sounds", "wav", "words", "txt"))
    ]  # fmt: skip
    rows[0] |= {
        "real_files": [None, *files["wav"][1:]],
        "tokenized_files": [None, *files["wav"][1:]],
    }
    (tmp_path / "samples/samples.json").write_text(json.dumps({"rows": rows}))
    results = {
        "any_to_any": {"pictures->sounds": CELL},
        "retrieval": {"pictures->sounds": RETRIEVAL, "none->at all": {"queries": 0, "gallery": 3}},
        "judge": {"pictures": {"real": 0.991, "real_interval": [0.98, 0.995]}},
        "tokenizer": {"pictures": {"fingerprint": "abc", "psnr_db": None}},
        "train": {
            "steps": 4000,
            "seconds": 417.2,
            "versions": {"jax": "0.10.2", "mm": mm.__version__},
        },
        "something new": {"a": {"b": 0.125}},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    experiment = to_json(Experiment(name="small & <sharp>", task=None, data=Data(source=None)))
    names = ("any_to_any", "retrieval", "judge", "tokenizer")
    evals = [{"type": "elsewhere:Evaluator", "name": name} for name in names]
    settings = {
        "version": mm.__version__, "fingerprint": "f", "file": "configs/small.py:arg",
        "changed": {"optim.lr": [1e-3, 5e-4]},
        "experiment": experiment | {"steps": 4000, "evals": evals},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    keep_shown(tmp_path / "evals" / "retrieval")
    lines = [
        {"step": s, "loss": 5 / s, "lr": 1e-3, "cosine/a-b": -0.5, "validation/loss": 6 / s}
        for s in (1, 20, 40)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 60, "lo')
    return tmp_path
