"""A trained model in a larger token space: what it said it says to the same bits."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tokenizers as hf

from mm import artefact, initial, tokenizers, workdir
from mm import state as states
from mm.config import Data, Experiment, Optim
from mm.errors import UserError
from mm.generate.sampling import Sampler
from mm.models.encoder_decoder import Model
from mm.optim import make_optimizer
from mm.sharding import make_mesh
from mm.tasks.joint import Joint
from mm.tokenizers.text import to_bytes
from tests.toy import Toy
from tests.weights.test_exported import saved

IMAGE, SPEECH, TEXT = ("tokenizers/image.safetensors", "tokenizers/speech.safetensors", "tokenizers/text.safetensors")  # fmt: skip
OLD = {"image": IMAGE, "text": TEXT}
MODEL = Model(width=16, heads=2, encoder_layers=2, decoder_layers=1, embed_dim=8, positions="learned")  # fmt: skip


def experiment(references, **more) -> Experiment:
    samplers = {name: Sampler(temperature=0.0) for name in references}
    return Experiment(
        name="small", task=Joint(model=MODEL, samplers=samplers), optim=Optim(ema=0.9),
        data=Data(source=Toy(), tokenizers=references), **more,
    )  # fmt: skip


def task_of(exp):
    return exp.task.build_for(tokenizers.space_of(tokenizers.load_all(exp.data.tokenizers)))


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A run of images and texts: its folder, its task, its weights."""
    folder = tmp_path_factory.mktemp("grow") / "run"
    exp = experiment(OLD)
    exp.optim.ema = 0.0
    workdir.claim(folder, exp)
    task = task_of(exp)
    params, _ = task.init(jax.random.key(3))
    saved(folder, 7, params, tokenizers.load_all(OLD))
    return folder, task, params


def grown(before, references):
    """The new task, and its fresh weights with the old ones in them."""
    exp = experiment(references, init=str(before[0]), grow=True)
    initial.check(exp)
    task, tx = task_of(exp), make_optimizer(exp.optim, 10)
    mesh = make_mesh(exp.mesh, exp.data.batch_size)
    state = initial.given(states.init(task, tx, 5, True, mesh), exp, task)
    for a, b in zip(*(jax.tree.leaves(state[k]) for k in ("params", "ema")), strict=True):
        assert np.array_equal(a, b)
    return task, state["params"]


def inputs(task, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for m in task.space.modalities:
        ids = rng.integers(0, m.vocabulary.size, (3, m.size)).astype(np.int32)
        made[m.name] = (ids, np.full(3, m.size, np.int32))
    return made


def test_a_new_modality_changes_nothing_that_was(before):
    _, old, params = before
    task, larger = grown(before, {"speech": SPEECH, **OLD})  # before the others: every id moves
    assert task.space.offset("image") != old.space.offset("image")
    given = inputs(old)
    key = jax.random.key(0)
    for name in OLD:
        one = {name: given[name]}
        assert np.array_equal(old.embed(params, one), task.embed(larger, one))
        other = {k: v for k, v in given.items() if k != name}
        for a, b in zip(
            old.generate(params, other, name, key=key),
            task.generate(larger, other, name, key=key), strict=True,
        ):  # fmt: skip
            assert np.array_equal(a, b)
        scores = [
            t.score(p, other, name, given[name], key=key)
            for t, p in ((old, params), (task, larger))
        ]
        assert np.array_equal(*scores)
    assert np.array_equal(old.embed(params, given), task.embed(larger, given))
    fresh, _ = task.init(jax.random.key(5))
    start = task.space.offset("speech")
    assert np.array_equal(larger["token"][start : start + 9], fresh["token"][start : start + 9])


@pytest.fixture
def more_words(tmp_path):
    """The shipped vocabulary and three more tokens: its end mark moves."""
    meta, arrays = artefact.read(artefact.Path(TEXT))
    bpe = hf.Tokenizer.from_str(arrays["vocabulary"].tobytes().decode())
    bpe.add_tokens([" zebra", " yak", " ox"])
    path = tmp_path / "text.safetensors"
    artefact.write(path, "text", meta["config"], {"vocabulary": to_bytes(bpe)}, {})
    return str(path)


def test_a_larger_vocabulary_of_a_text(before, more_words):
    _, old, params = before
    task, larger = grown(before, {"text": more_words, "image": IMAGE})
    toks = [tokenizers.load(r, "text") for r in (TEXT, more_words)]
    ids = toks[1].ids_of(toks[0])
    size = toks[0].modality.vocabulary.size
    assert task.space.vocabulary("text").size == size + 3
    assert ids[-1] == size + 2 != size - 1, "the end moved"
    texts = ["a thick three", "seven"]
    states_ = np.random.default_rng(0).normal(size=(2, 4, 16)).astype(np.float32)
    logits = [t.model(p).logits(states_, "text") for t, p in ((old, params), (task, larger))]
    assert np.array_equal(logits[0], logits[1][..., ids])
    embedded = [
        t.embed(p, {"text": tok.encode(texts)})
        for (t, p), tok in zip(((old, params), (task, larger)), toks, strict=True)
    ]
    assert np.array_equal(*embedded)


def test_what_cannot_grow_is_refused(before, more_words):
    with pytest.raises(UserError, match=r"another token space: the 'speech' .*or let it grow"):
        initial.check(replace(experiment({**OLD, "speech": SPEECH}), init=str(before[0])))
    for references, said in (
        ({"image": IMAGE}, "the 'text' tokenizer: it is missing here"),
        ({"image": SPEECH, "text": TEXT}, "the 'image' tokenizer: its codes mean something else"),
    ):
        exp = experiment(references, init=str(before[0]), grow=True)
        with pytest.raises(UserError, match=said):
            initial.check(exp)
    wider = experiment({**OLD, "speech": SPEECH}, init=str(before[0]), grow=True)
    wider.task.model = replace(MODEL, width=32)
    task, tx = task_of(wider), make_optimizer(wider.optim, 10)
    state = states.init(task, tx, 5, True, make_mesh(wider.mesh, 256))
    with pytest.raises(UserError, match=r"grown: .*: float32\[16\] there, float32\[32\] here"):
        initial.given(state, wider, task)


def test_a_vocabulary_that_lost_a_token_is_not_larger(before, more_words):
    text, more = (tokenizers.load(r, "text") for r in (TEXT, more_words))
    with pytest.raises(UserError, match="3 tokens of the old vocabulary are not in the new one"):
        text.ids_of(more)
