"""Files that lie elsewhere: gs:// stands for a folder of this machine, in which nothing can be appended to.

What needs the real thing (Orbax's own driver for gs://, credentials) is not tested here.
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath

from mm import artefact, metrics, paths, workdir
from mm.evals.samples import emptied, write_rows
from mm.report import write_report
from mm.report.files import read_run
from tests import toy_config
from tests.tokenizers.test_text import make


class Elsewhere(type(backend.os_backend)):
    """gs://... as files below `root`; every call that reaches it is one that would have gone there."""

    def __init__(self, root: Path):
        self.root = root

    def here(self, path) -> str:
        text = os.fspath(path)
        assert text.startswith("gs://"), text
        return str(self.root / text.removeprefix("gs://"))

    def open(self, path, mode):
        assert "a" not in mode and "+" not in mode, "objects cannot be appended to"
        if "w" in mode:  # there are no folders there: they are made by what lies in them
            Path(self.here(path)).parent.mkdir(parents=True, exist_ok=True)
        return backend.os_backend.open(self.here(path), mode)

    def exists(self, path):
        return backend.os_backend.exists(self.here(path))

    def isdir(self, path):
        return backend.os_backend.isdir(self.here(path))

    def listdir(self, path):
        return backend.os_backend.listdir(self.here(path))

    def glob(self, path):
        found = backend.os_backend.glob(self.here(path))
        return ["gs://" + os.path.relpath(f, self.root) for f in found]

    def makedirs(self, path, **how):
        backend.os_backend.makedirs(self.here(path), **how)

    def mkdir(self, path, **how):
        backend.os_backend.makedirs(self.here(path), **how)

    def rmtree(self, path):
        backend.os_backend.rmtree(self.here(path))

    def remove(self, path):
        backend.os_backend.remove(self.here(path))

    def rename(self, path, dst):
        backend.os_backend.rename(self.here(path), self.here(dst))

    def replace(self, path, dst):
        backend.os_backend.replace(self.here(path), self.here(dst))

    def copy(self, path, dst, overwrite):
        near = lambda p: self.here(p) if os.fspath(p).startswith("gs://") else os.fspath(p)
        backend.os_backend.copy(near(path), near(dst), overwrite=overwrite)

    def walk(self, top, **how):
        for path, folders, names in backend.os_backend.walk(self.here(top), **how):
            yield "gs://" + os.path.relpath(path, self.root), folders, names

    def stat(self, path):
        return backend.os_backend.stat(self.here(path))


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> epath.Path:
    far = Elsewhere(tmp_path / "far")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", far)
    monkeypatch.setattr(gpath, "_GCS_BACKENDS", frozenset({far}))
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setenv(paths.CACHE, str(tmp_path / "near"))
    monkeypatch.chdir(Path(__file__).parent.parent)
    return epath.Path("gs://bucket/runs")


def test_what_is_local():
    assert paths.is_local("runs/a") and paths.is_local(epath.Path("/x/y"))
    assert not paths.is_local("gs://b/x") and not paths.is_local(epath.Path("s3://b/x"))


def test_caches_stay_on_this_machine(bucket, tmp_path):
    assert paths.cache_of(epath.Path("runs/a")) == epath.Path("runs/a/cache")
    near = paths.cache_of(bucket / "a")
    assert os.fspath(near).startswith(str(tmp_path / "near")) and near.name.startswith("a-")
    assert near != paths.cache_of(epath.Path("gs://other/a")) and near == paths.cache_of(bucket / "a")  # fmt: skip


def test_json_and_results(bucket):
    folder = bucket / "a"
    assert workdir.results(folder) == {}
    workdir.write_json(folder / "results.json", {"train": {"steps": 3}})
    assert workdir.results(folder) == {"train": {"steps": 3}}
    assert [p.name for p in folder.iterdir()] == ["results.json"], "nothing partial is left"


def test_artefacts(bucket):
    path = bucket / "weights" / "x.safetensors"
    arrays = {"w": np.arange(4.0, dtype=np.float32)}
    mark = artefact.write(path, "text", {"a": 1}, arrays, {"of": "tests"})
    meta, found = artefact.read(path)
    assert meta["fingerprint"] == mark and meta["card"] == {"of": "tests"}
    assert np.array_equal(found["w"], arrays["w"])


def test_metrics_are_written_anew_and_continued(bucket, tmp_path):
    path, cache = bucket / "a" / "metrics.jsonl", epath.Path(tmp_path / "near")
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # killed behind step 3, saved at step 2
        log = metrics.Writers(
            metrics.Jsonl(path, start), metrics.TensorBoard(bucket / "a" / "tensorboard", start, cache)
        )  # fmt: skip
        for step in steps:
            log.write(step, {"loss": 10.0 * step})
        log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": s, "loss": 10.0 * s} for s in (1, 2, 3, 4)]
    assert any((bucket / "a" / "tensorboard").iterdir())


def test_metrics_are_seen_while_a_run_lasts(bucket, monkeypatch):
    monkeypatch.setattr(metrics, "FAR", 0.0)
    log = metrics.Jsonl(bucket / "metrics.jsonl", 0)
    log.write(1, {"loss": 1.0})
    assert '"loss": 1.0' in (bucket / "metrics.jsonl").read_text()


def test_a_run_is_claimed_marked_and_reported(bucket, capsys):
    """Everything of a run but its checkpoints."""
    exp, folder = toy_config.get_config(), bucket / "toy"
    exp.data.tokenizers = {"text": "tokenizers/text.safetensors#ce4a48d1"}
    workdir.claim(folder, exp)
    with workdir.held(folder):
        assert (folder / "running").exists()
    assert not (folder / "running").exists()
    (folder / "running").write_text("process 7 on another machine since noon\n")
    with workdir.held(folder):
        pass
    said = capsys.readouterr().out
    assert "ended without farewell (process 7 on another machine since noon)" in said
    again = workdir.experiment(folder, whole=True)
    assert again.data.tokenizers == {"text": "gs://bucket/runs/toy/tokenizers/text.safetensors"}
    metrics.Jsonl(folder / "metrics.jsonl", 0).write(1, {"loss": 2.5, "fit/square": 2.5})
    samples = write_rows(emptied(folder / "samples"), "text", make(["some words"], 8), ["words"])
    assert samples == ["text/0.txt"]
    workdir.write_json(folder / "results.json", {"train": {"steps": 60, "seconds": 1.0}})
    page = write_report(folder)
    assert os.fspath(page) == "gs://bucket/runs/toy/report/index.html"
    assert "toy" in page.read_text() and read_run(folder).results["train"]["steps"] == 60


def test_a_refused_start_leaves_nothing(bucket):
    from mm.errors import UserError

    exp = toy_config.get_config()

    def start():
        with workdir.tidied(bucket / "b"):
            workdir.claim(bucket / "b", exp)
            raise UserError("no")

    with pytest.raises(UserError):
        start()
    assert not (bucket / "b").exists()


def test_a_data_set_is_copied_once(bucket, tmp_path):
    far, near = bucket / "sets" / "x", epath.Path(tmp_path / "near" / "x")
    for name in ("1.0.0/info.json", "1.0.0/train.array_record"):
        (far / name).write_bytes(name.encode())
    assert paths.copied(far, near) == near
    assert (near / "1.0.0" / "train.array_record").read_bytes() == b"1.0.0/train.array_record"
    (far / "1.0.0" / "info.json").write_text("changed")
    paths.copied(far, near)
    assert (near / "1.0.0" / "info.json").read_text() == "1.0.0/info.json"
    assert paths.copied(near, tmp_path / "not" / "made") == near


def test_programs_are_kept_where_the_run_or_the_environment_says(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "said"))
        paths.keep_programs(epath.Path(tmp_path))
        assert jax.config.jax_compilation_cache_dir == before, "JAX has read the variable"
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        paths.keep_programs(epath.Path(tmp_path))
        assert Path(jax.config.jax_compilation_cache_dir).parent == tmp_path / "xla"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
