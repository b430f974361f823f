"""A model in one file: what goes in comes out, wherever it is opened from; and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import mm
from mm import artefact, checkpoint, tokenizers, workdir
from mm.config import Data, Experiment
from mm.errors import UserError
from mm.models.encoder_decoder import Model
from mm.tasks.joint import Joint
from mm.weights import exported
from mm.weights.__main__ import main
from tests import toy_config
from tests.toy import Toy

TOKENIZERS = {
    "image": "tokenizers/image.safetensors#19398e4d",
    "text": "tokenizers/text.safetensors#ce4a48d1",
}
SMALL = Model(width=16, heads=2, encoder_layers=1, decoder_layers=1, embed_dim=8, scan=False)


def saved(folder, step, params, toks):
    """Writes a checkpoint of these weights."""
    state = {"params": params, "buffers": {}, "opt": {}, "ema": {}, "step": np.int32(step)}
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints")
    checkpoints.save(step, state, {"tokenizers": {n: t.fingerprint for n, t in toks.items()}})
    checkpoints.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder whose checkpoint holds fresh weights."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    exp = Experiment(
        name="small", task=Joint(model=SMALL), data=Data(source=Toy(), tokenizers=TOKENIZERS)
    )
    workdir.claim(folder, exp)
    toks = tokenizers.load_all(TOKENIZERS)
    params, _ = exp.task.build_for(tokenizers.space_of(toks)).init(jax.random.key(3))
    saved(folder, 7, params, toks)
    cell = {"accuracy": 0.5, "interval": [0.4, 0.6]}
    workdir.write_json(folder / "results.json", {"any_to_any": {"image->text": cell}})
    return folder


@pytest.fixture(scope="module")
def file(run) -> Path:
    out = run.parent / "given" / "small.safetensors"
    card = run.parent / "card.md"
    card.write_text("# small\n\nData: none.\n")
    assert main(["export", str(run), "--out", str(out), "--card", str(card)]) == 0
    return out


def test_it_is_the_run_in_half_precision(run, file):
    ours, theirs = mm.load(run), mm.load(file)
    texts = ["a thin seven", "three"]
    assert np.abs(ours.embed(text=texts) - theirs.embed(text=texts)).max() < 2e-3
    for name, array in jax.tree_util.tree_leaves_with_path(theirs.params):
        assert array.dtype == np.float32, name
    _, arrays = artefact.read(file)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float16)}
    image = theirs.generate("image", text=texts)
    assert image.shape == (2, 28, 28) and image.dtype == np.uint8
    assert theirs.card["step"] == 7 and theirs.card["card"].startswith("# small")
    assert theirs.card["figures"]["any_to_any.image->text.accuracy"]["interval"] == [0.4, 0.6]


def test_it_opens_from_any_folder_and_takes_tokenizers_that_lie_beside_it(file, tmp_path):
    code = f"import mm; print(mm.load({str(file)!r}).embed(text=['one']).shape)"
    path = f"import sys; sys.path.insert(0, {str(Path(mm.__file__).parents[1])!r}); "
    done = subprocess.run(
        [sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "(1, 8)", done.stderr
    other = file.parent / "tokenizers" / "text.safetensors"
    other.parent.mkdir()
    other.write_bytes(Path("tokenizers/image.safetensors").read_bytes())
    try:
        with pytest.raises(UserError, match=r"given/tokenizers/text\.safetensors: fingerprint"):
            mm.load(file)
    finally:
        other.unlink()


def test_what_cannot_be_opened_or_exported_is_one_line(run, file, tmp_path):
    with pytest.raises(UserError, match="not a joint model"):
        mm.load("tokenizers/image.safetensors")
    with pytest.raises(UserError, match="no such file"):
        mm.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    broken.write_bytes(data)
    with pytest.raises(UserError, match="not what its label says"):
        mm.load(broken)
    meta, arrays = artefact.read(file)
    lost = meta["config"] | {"tokenizers": {"image": "tokenizers/gone.safetensors#12"}}
    artefact.write(broken, "joint", lost, arrays, {})
    with pytest.raises(UserError, match=r"tokenizers/gone\.safetensors is not found"):
        mm.load(broken)
    toy = tmp_path / "toy"
    workdir.claim(toy, toy_config.get_config())
    saved(toy, 1, {"w": np.zeros(2)}, {})
    with pytest.raises(UserError, match="trained no joint model"):
        exported.write(toy, tmp_path / "toy.safetensors")
    with pytest.raises(UserError, match=r"--card .*: no such file"):
        main(["export", str(run), "--out", str(tmp_path / "x"), "--card", str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"python -m mm\.weights \w+ --help"):
        main(["import", str(run)])


def test_weights_beyond_half_precision_are_refused_and_nothing_is_written(run, tmp_path):
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(folder)], check=True)
    exp = workdir.experiment(folder)
    toks = tokenizers.load_all(exp.data.tokenizers)
    params, _ = exp.task.build_for(tokenizers.space_of(toks)).init(jax.random.key(0))
    params["logit_scale"] = params["logit_scale"] + 1e5
    saved(folder, 8, params, toks)
    with pytest.raises(UserError, match="logit_scale does not fit float16"):
        exported.write(folder, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_the_shipped_model_is_small_and_says_what_it_is():
    assert exported.SHIPPED.stat().length <= 10e6
    meta, _ = artefact.read(exported.SHIPPED)
    card = meta["card"]
    assert "CC BY-SA 4.0" in card["card"] and "heard six speakers" in card["card"]
    assert json.dumps(card["figures"]).count("accuracy") > 6 and card["seed"] >= 0
    assert exported.SHIPPED.with_suffix(".md").read_text() == card["card"]
