"""A kind of data that mm does not know: its settings and network stand in a recipe's file, which artefacts name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import quickstart
from mm import artefact, parts, tokenizers
from mm.errors import UserError
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers import autoencoder
from mm.tokenizers.quantizers import VectorQuantizer

ROOT = Path(__file__).parents[2]
RECIPE = '''
import dataclasses
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from mm.models.layers import Linear
from mm.space import Grid

@dataclasses.dataclass(kw_only=True, slots=True)
class Scale:
    by: float = 2.0

@dataclasses.dataclass(kw_only=True, slots=True)
class Walk:
    """A walk of 6 steps (x, y); each pair of steps is a code."""
    latent: int = 4
    hidden: int = 8
    span: tuple[float, float] = (-1.0, 1.0)
    scale: Scale = dataclasses.field(default_factory=Scale)
    row = property(lambda self: jax.ShapeDtypeStruct((6, 2), np.float32))
    grid = property(lambda self: Grid(t=3))

    def build(self, rngs):
        return Network(self, rngs)

class Network(nnx.Module):
    def __init__(self, s, rngs):
        self.s, self.into, self.out = s, Linear(4, s.latent, rngs=rngs), Linear(s.latent, 4, rngs=rngs)

    def prepare(self, raw): return raw * self.s.scale.by
    def encode(self, x): return self.into(x.reshape(-1, 3, 4))
    def decode(self, z): return self.out(z).reshape(-1, 6, 2)
    def terms(self, out, x): return {"reconstruction": (jnp.square(out - x).sum(), jnp.float32(x.size))}
    def render(self, out): return jnp.clip(out / self.s.scale.by, *self.s.span)
'''


class Walks:
    """Opened data, as far as a task looks at it."""

    def raw(self, split: str) -> dict[str, np.ndarray]:
        return {"walk": walks(40)}


def walks(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 6, 2)).astype(np.float32)


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "walk.py").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tokenizers" / "walk.py"


def settings(**changed) -> Autoencode:
    network = parts.required("tokenizers/walk.py:Walk")(**changed)
    return Autoencode(
        column="walk", network=network, quantizer=VectorQuantizer(codes=16, width=network.latent)
    )


@pytest.fixture
def exported(recipe) -> Path:
    task = settings(span=(-0.5, 0.5)).build(Walks())
    params, buffers = task.init(jax.random.key(0))
    return task.export(params, buffers, recipe.parent)


def edited(recipe: Path, old: str, new: str) -> None:
    """The file changed, as by another session."""
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new))
    sys.modules.pop("tokenizers/walk.py", None)


def test_its_artefact_names_its_class_and_is_whole(exported):
    meta, _ = artefact.read(exported)
    assert meta["kind"] == "tokenizers/walk.py:Walk"
    tokenizer = tokenizers.load(f"{exported}#{meta['fingerprint']}", "walk")
    assert tokenizer.settings == settings(span=(-0.5, 0.5)).network  # tuple and nested part too
    assert tokenizer.modality.size == 3 and tokenizer.modality.vocabulary.size == 16
    assert tokenizer.vectors.shape == (16, 4)
    ids, length = tokenizer.encode(walks(40))
    assert ids.shape == (40, 3) and ids.dtype == np.int32 and (length == 3).all()
    decoded = tokenizer.decode(ids)
    assert decoded.shape == (40, 6, 2) and decoded.dtype == np.float32
    assert np.abs(decoded).max() == 0.5  # the span of the settings
    assert tokenizer.encode(walks(0))[0].shape == (0, 3)
    with pytest.raises(ValueError, match=r"rows of 'walk' are float32\[n, 6, 2\], not float64"):
        tokenizer.encode(walks(2).astype(np.float64))


def test_files_are_arrays_where_the_settings_do_not_say(exported, tmp_path):
    tokenizer, row = tokenizers.load(str(exported), "walk"), walks(1)[0]
    path = tokenizer.write_file(row, tmp_path / "out" / "v1.0")
    assert path == tmp_path / "out" / "v1.0.npy"
    np.testing.assert_array_equal(tokenizer.read_file(path), row)
    bad = {
        "missing": (None, "no such file"),
        "empty": (b"", "is empty"),
        "text": (b"seven", "not an array"),
        "objects": (np.array([{}, None]), "not an array"),
        "shape": (row[:5], r"holds float32\[5, 2\], a row is float32\[6, 2\]"),
        "dtype": (row.astype(int), "holds int64"),
        "nan": (row * np.nan, "not numbers"),
    }
    for name, (contents, says) in bad.items():
        file = tmp_path / f"{name}.npy"
        if isinstance(contents, bytes):
            file.write_bytes(contents)
        elif contents is not None:
            np.save(file, contents)
        with pytest.raises(UserError, match=says) as e:
            tokenizer.read_file(file)
        assert str(e.value).startswith(str(file)) and "\n" not in str(e.value)


def test_a_picture_is_what_is_looked_at_and_the_file_lies_beside_it(recipe, exported, tmp_path):
    picture = "    def picture(self, row): return np.uint8(127 * (1 + row)).repeat(10, 1)\n"
    mark = "    def build(self, rngs):"
    edited(recipe, mark, picture + mark)
    tokenizer, row = tokenizers.load(str(exported), "walk"), walks(1)[0]
    path = tokenizer.write_file(row, tmp_path / "out" / "v1.0")
    assert path.name == "v1.0.png" and Image.open(path).size == (160, 48)
    np.testing.assert_array_equal(tokenizer.read_file(path.with_suffix(".npy")), row)
    own = (
        "    def write_file(self, row, stem):\n        stem.with_suffix('.csv').write_text('x,y')\n"
    )
    edited(recipe, mark, picture.replace("np.uint8", "") + own + mark)
    with pytest.raises(UserError, match=r"uint8\[H, W\] or \[H, W, 3\], not float32\[6, 20\]"):
        tokenizers.load(str(exported), "walk").write_file(row, tmp_path / "row")
    assert (tmp_path / "row.csv").read_text() == "x,y"


def test_another_process_finds_the_class_from_the_checkout(exported, tmp_path):
    code = (
        "from mm import tokenizers; from mm.errors import UserError\n"
        f"try: print(tokenizers.load({str(exported)!r}, 'walk').settings.span)\n"
        "except UserError as e: print(e)"
    )

    def run(folder: Path) -> str:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=True
        ).stdout

    assert run(tmp_path) == "(-0.5, 0.5)\n"
    said = run(tmp_path / "tokenizers")
    assert f"{exported}: the class of its settings is not found: tokenizers/walk.py: no such file; run from the checkout" in said  # fmt: skip
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("class Walk:", "class Walks:", "has no 'Walk'; did you mean 'Walks'?"),
        ("    hidden: int = 8\n", "", "has other fields by now"),
        (
            "s.latent, 4,",
            "s.latent, 4, bias=False,",
            "out.bias is (4,) there, and missing in the network",
        ),
    ],
)
def test_a_class_that_has_changed_is_one_line(recipe, exported, old, new, says):
    edited(recipe, old, new)
    with pytest.raises(UserError) as e:
        tokenizers.load(str(exported), "walk")
    assert says in str(e.value) and str(exported) in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("judge", "holds a 'judge', not a tokenizer"),
        ("imge", "not a tokenizer; did you mean 'image'?"),
        ("os:system", "os:system is no dataclass with build()"),
        ("mm.config:Optim", "mm.config:Optim is no dataclass with build()"),
        ("tokenizers/none.py:A", "tokenizers/none.py: no such file"),
    ],
)
def test_what_is_no_tokenizer_is_not_called(recipe, tmp_path, kind, says):
    path = tmp_path / "a.safetensors"
    artefact.write(path, kind, {"network": {"command": "false"}}, {"a": np.zeros(1)}, {})
    with pytest.raises(UserError) as e:
        tokenizers.load(str(path), "a")
    assert says in str(e.value) and str(path) in str(e.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("reshape(-1, 3, 4)", "reshape(-1, 6, 2)[:, :3].repeat(2, 2)[:, 1:]", "encode of Walk's"),
        ("out / self.s.scale.by, ", "out[:, 1:], ", r"render .* float32[2, 5, 2] of 2 rows"),
        ('"reconstruction":', '"error":', "none has a weight"),
    ],
)
def test_a_network_that_does_not_give_what_its_settings_say(recipe, old, new, says):
    edited(recipe, old, new)
    with pytest.raises(UserError) as e:
        settings().build(Walks())
    assert all(part in str(e.value) for part in says.split(" .* ")) and "\n" not in str(e.value)


def test_shipped_artefacts_keep_their_kinds_and_fingerprints():
    made = tokenizers.load_all(quickstart.TOKENIZERS)  # checks the pinned fingerprints
    assert [m.size for m in (t.modality for t in made.values())] == [16, 16, 8]
    for name, kind in {"image": "image", "speech": "audio"}.items():
        assert artefact.kind_of(made[name].settings, autoencoder.KINDS) == kind
    assert made["speech"]._chunks[-1] == 128 and made["image"]._chunks[-1] == 2048


def test_kinds_of_one_class_and_of_its_children_are_not_mixed_up(recipe):
    recipe.write_text(
        "import dataclasses\nfrom mm.tokenizers.image import ImageAutoencoder\n"
        "@dataclasses.dataclass(kw_only=True, slots=True)\nclass Mine(ImageAutoencoder): pass\n"
    )
    sys.modules.pop("tokenizers/walk.py", None)
    mine = parts.required("tokenizers/walk.py:Mine")()
    kind = artefact.kind_of(mine, autoencoder.KINDS)
    assert kind == "tokenizers/walk.py:Mine"
    fields = json.loads(json.dumps({"framing": {"box": 0, "stroke": 0.1}, "height": 14}))
    made = artefact.rebuilt(parts.required(kind), fields)
    assert type(made) is type(mine) and made.framing.box == 0 and made.height == 14
