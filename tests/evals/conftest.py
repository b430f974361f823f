"""A small world of pictures, waves and texts, and a stand-in for a model of known accuracy."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from PIL import Image

from mm.data.batches import TokenTable
from mm.evals.features import LogSpectrogram
from mm.evals.kinds import Kind
from mm.space import Modality, TokenSpace, Vector, Vocabulary
from mm.tasks import Run

WORDS = ("zero", "one", "two", "three")
SIZES = {"train": (400, 60), "validation": (40, 12), "test": (160, 12)}  # pictures, recordings
FORMS = {"train": 3, "validation": 1, "test": 1}


def read_class(picture: np.ndarray) -> int:
    """The brightest quadrant."""
    return int(picture.reshape(2, 4, 2, 4).mean((1, 3)).argmax())


def measure(picture: np.ndarray) -> dict[str, str]:
    return {"light": "bright" if picture.max() > 200 else "dim"}


def read_word(text: str) -> int | None:
    return next((WORDS.index(w) for w in text.split() if w in WORDS), None)


def read_light(text: str) -> dict[str, str]:
    return {"light": next((w for w in text.split() if w in ("bright", "dim")), "none")}


def read_wave(wave: np.ndarray) -> int:
    return int(np.abs(np.fft.rfft(wave)).argmax()) // 8 - 1


class World:
    """A source: `mm.data.Source` and `mm.evals.kinds.Described`."""

    def __init__(self):
        self.rows, self.group = {}, {}
        for s, split in enumerate(SIZES):
            pictures, recordings = SIZES[split]
            rng = np.random.default_rng(s)
            group = np.arange(pictures) % 4
            level = rng.choice([150, 235], pictures) + rng.integers(-12, 13, pictures)
            picture = rng.integers(0, 60, (pictures, 2, 2))
            picture.reshape(pictures, 4)[np.arange(pictures), group] = level
            picture = picture.repeat(4, 1).repeat(4, 2).astype(np.uint8)
            lights = [measure(p)["light"] for p in picture]
            texts = [
                t
                for g, f in zip(group, lights, strict=True)
                for t in (WORDS[g], f"a {f} {WORDS[g]}")
            ]
            kind = np.repeat(np.arange(recordings) % 4, FORMS[split])
            wave = self.waves(kind, rng)
            self.rows[split] = {"picture": picture, "wave": wave, "text": np.array(texts, object)}
            self.group[split] = {"picture": group, "wave": kind, "text": np.repeat(group, 2)}

    @staticmethod
    def waves(kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        t = np.arange(512) / 512
        loud, late = rng.uniform(0.3, 1, (2, len(kind), 1))
        return (loud * np.sin(2 * np.pi * (8 * (kind[:, None] + 1) * t + late))).astype(np.float32)

    def order(self, split: str, seed: int, epoch: int) -> dict[str, np.ndarray]:
        group = self.group[split]["picture"]
        waves = self.group[split]["wave"]
        rng = np.random.default_rng(7)
        wave = np.array([rng.choice(np.flatnonzero(waves == g)) for g in group])
        text = 2 * np.arange(len(group)) + rng.integers(0, 2, len(group))
        columns = {"picture": np.arange(len(group)), "wave": wave, "text": text}
        return columns | {"group": group.astype(np.int32)}

    def items(self, split: str, column: str) -> np.ndarray:
        forms = {"picture": 1, "wave": FORMS[split], "text": 2}[column]
        return np.arange(len(self.rows[split][column])) // forms

    def kinds(self, split: str, column: str) -> np.ndarray:
        names = {
            "picture": ["whole"],
            "wave": ["clean", "late", "late"],
            "text": ["word", "caption"],
        }
        forms = {"picture": 1, "wave": FORMS[split], "text": 2}[column]
        return np.resize(names[column][:forms], len(self.rows[split][column]))


class Column:
    def __init__(self, rows: np.ndarray):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray):
        found = self.rows[rows]
        return list(found) if self.rows.dtype == object else found


class Codes:
    """A tokenizer that numbers the distinct rows it has seen: exact, and decodable."""

    vectors = None

    def __init__(self, name: str, rows: np.ndarray):
        self.name = name
        self.rows = {self._key(row): row for row in rows}
        self.known = list(self.rows)
        self.number = {key: i for i, key in enumerate(self.known)}
        self.fingerprint = f"codes-of-{name}"
        vocabulary = Vocabulary(name=name, size=len(self.known))
        self.modality = Modality(name=name, vocabulary=vocabulary, layout=Vector(n=1))

    def _key(self, row):
        return row if self.name == "text" else row.tobytes()

    def encode(self, raw):
        ids = np.array([[self.number[self._key(r)]] for r in raw], np.int32)
        return ids, np.ones(len(ids), np.int32)

    def encode_prompt(self, template: str):
        return np.array([len(template)], np.int32), np.array([False])

    def decode(self, ids, length=None):
        found = [self.rows[self.known[i]] for i in np.asarray(ids)[:, 0]]
        return found if self.name == "text" else np.stack(found)

    def write_file(self, raw, stem: Path) -> Path:
        if self.name == "text":
            path = stem.with_suffix(".txt")
            path.write_text(raw)
        elif self.name == "picture":
            path = stem.with_suffix(".png")
            Image.fromarray(raw).save(path)
        else:
            path = stem.with_suffix(".wav")
            soundfile.write(path, raw, 8000, subtype="PCM_16")
        return path


@dataclasses.dataclass
class Data:
    source: World
    tokenizers: dict

    @property
    def space(self) -> TokenSpace:
        return TokenSpace(tuple(t.modality for t in self.tokenizers.values()))

    def raw(self, split):
        return {name: Column(rows) for name, rows in self.source.rows[split].items()}

    columns = raw

    def tokens(self, split):
        table = {}
        for name, rows in self.source.rows[split].items():
            ids, length = self.tokenizers[name].encode(rows)
            table[name] = TokenTable(ids, length)
        return table

    def order(self, split, seed, epoch):
        return self.source.order(split, seed, epoch)

    def batches(self, split, *, seed, start, steps, batch_size):
        for i in range(start, steps):
            x = np.arange(batch_size, dtype=np.float32) + 10 * i
            yield {"x": x, "group": np.zeros(batch_size, np.int32)}


class Oracle:
    """Knows every row's group and answers with a training row of it, but for a share of errors.

    params: {"error": share of wrong groups, "prototype": always the first row of the group}.
    """

    def __init__(self, data: Data):
        self.data, self.asked, self.meant = data, [], []
        self.weights = {"mean": 2.0}
        self.traces = 0

    def groups(self, name: str, ids: np.ndarray) -> np.ndarray:
        raw = self.data.tokenizers[name].decode(ids)
        read = {"text": read_word, "picture": read_class, "wave": read_wave}[name]
        return np.array([read(r) for r in raw])

    def generate(self, params, inputs, target, *, key, sampler, prompt=None, grammar=None):
        (name, (ids, _)), source = next(iter(inputs.items())), self.data.source
        self.asked.append((name, self.data.tokenizers[name].decode(ids)))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        group = self.groups(name, ids)
        wrong = rng.random(len(group)) < params["error"]
        group = np.where(wrong, (group + 1) % 4, group)
        self.meant.append(wrong)
        rows, groups = source.rows["train"][target], source.group["train"][target]
        wanted = np.ones(len(rows), bool)
        if target == "text":
            wanted = source.kinds("train", "text") == ("caption" if prompt[0][0] > 6 else "word")
        out = []
        for g in group:
            own = np.flatnonzero((groups == g) & wanted)
            out.append(own[0] if params["prototype"] else rng.choice(own))
        return self.data.tokenizers[target].encode(rows[np.array(out)])

    def embed(self, params, inputs):
        parts = []
        for i, (name, (ids, _)) in enumerate(sorted(inputs.items())):
            group = self.groups(name, ids)
            blur = np.random.default_rng(i).normal(size=(len(group), 4)) * params.get("blur", 0)
            parts.append(np.eye(4)[group] + blur)
        z = np.mean(parts, 0)
        return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)

    def loss(self, params, buffers, batch, key):
        self.traces += 1
        x = batch["x"] + 0 * jax.random.normal(key, batch["x"].shape)
        count = jnp.float32(len(x))
        return {"mean": (x.sum(), count), "unused": (jnp.float32(0), jnp.float32(0))}, buffers


@pytest.fixture
def kinds() -> dict[str, Kind]:
    front = LogSpectrogram(frame=64, hop=32, bands=8, pool=3)
    return {
        "picture": Kind(name="picture", judge=read_class, facts=measure),
        "wave": Kind(name="wave", rows="clean", judge=read_wave, front=front),
        "text": Kind(name="text", rows="word", judge=read_word, prompt="[MASK]"),
        "caption": Kind(
            name="caption", modality="text", rows="caption", judge=read_word, facts=read_light,
            prompt="a caption",
        ),
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    source = World()
    both = {n: np.concatenate([source.rows[s][n] for s in SIZES]) for n in source.rows["train"]}
    data = Data(source, {n: Codes(n, rows) for n, rows in both.items()})
    return Run(Oracle(data), {"error": 0.0, "prototype": False}, {}, data, tmp_path, seed=3)
