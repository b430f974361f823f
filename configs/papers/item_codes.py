"""Item codes: things as a few residual codes, and generation that can only name things that there are.

    python -m mm.papers run item_codes

Pictures of emoji as 64 principal components; three codes of 32 each, coarse first, kept by running averages of the training
pictures; a fourth tells apart those that have the same three. What is sampled is random logits, the worst that a model can say.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path

from data_pipelines.emoji import Emoji
from mm.data.records import CorruptLog
from mm.generate import grammar
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tokenizers.quantizers import Residual, VectorQuantizer

WIDTH, CODES, STAGES = 64, 32, 3
UPDATES, DRAWS = 100, 5000
PAPER = Paper(
    title="Residual codes as names of items, generated under a trie: MMGRec, MSCGRec, PRORec",
    numbers=(71, 112, 122, 201),
    row="42",
    status="D",
    formula="Each stage quantizes what the stages before it left of an item's embedding; an item is the sequence of its codes, and decoding "
    "follows the trie of all items' sequences.",
    expected="only codes of items are generated (exact), and the squared error falls at every stage, on held-out items too; without the "
    "trie, random logits must fail: they name an item in less than 5% of the draws.",
)


def embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Of training and of test pictures: float32[n, WIDTH], components of the training ones, scaled to a mean square of 1."""
    source = Emoji(modalities=("colour",))
    source.open(Path("."), CorruptLog(0))
    train, test = (
        (column[np.arange(len(column))].reshape(len(column), -1) / 255).astype(np.float64)
        for column in (source.columns(split)["colour"] for split in ("train", "test"))
    )
    centre = train.mean(0)
    _, _, axes = np.linalg.svd(train - centre, full_matrices=False)
    z_train, z_test = ((x - centre) @ axes[:WIDTH].T for x in (train, test))
    scale = np.sqrt(np.square(z_train).mean())
    return (z_train / scale).astype(np.float32), (z_test / scale).astype(np.float32)


def named(codes: np.ndarray) -> np.ndarray:
    """int32[n, m] -> int32[n, m + 1]: the last one counts items whose codes are the same, from the ids' end on."""
    _, place = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(place, kind="stable")
    first = np.r_[0, np.flatnonzero(np.diff(place[order])) + 1]
    count = np.arange(len(codes)) - np.repeat(first, np.diff(np.r_[first, len(codes)]))
    again = np.empty(len(codes), np.int32)
    again[order] = count
    return np.column_stack([codes, STAGES * CODES + again]).astype(np.int32)


def measure(seed: int) -> dict[str, Any]:
    """What is left after each stage, and whose codes are generated."""
    train, test = embeddings()
    quantizer = Residual(stage=VectorQuantizer(codes=CODES, width=WIDTH, cosine=False, decay=0.9), stages=STAGES)  # fmt: skip
    key = jax.random.key(seed)
    buffers = quantizer.init(key)
    step = jax.jit(lambda b, k: quantizer.update(b, quantizer.quantize(b, jnp.asarray(train)), k))
    for i in range(UPDATES):
        buffers = step(buffers, jax.random.fold_in(key, i))
    left = {}
    for name, z in (("train", train), ("test", test)):
        ids = quantizer.quantize(buffers, jnp.asarray(z)).ids
        for m in range(1, STAGES + 1):
            gap = np.square(z - quantizer.lookup(buffers, ids[:, :m])).mean()
            left[f"{name} {m}"] = float(gap / np.square(z).mean())
    items = named(np.asarray(quantizer.quantize(buffers, jnp.asarray(train)).ids))
    size = int(items.max()) + 1
    known = {tuple(row) for row in items.tolist()}
    drawn = {
        "trie": sampled(grammar.trie(items, size), items.shape[1], size, seed),
        "free": sampled(None, items.shape[1], size, seed),
    }
    share = {n: float(np.mean([tuple(r) in known for r in x.tolist()])) for n, x in drawn.items()}
    return {"left": left, "valid": share, "items": {"distinct": len(known) / len(items)}}


def sampled(trie: grammar.Tables | None, length: int, size: int, seed: int) -> np.ndarray:
    """int32[DRAWS, length], of random logits; under the trie, if there is one."""

    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        state, ids = grammar.start(trie, DRAWS) if trie else jnp.zeros(()), []
        for i in range(length):
            of_logits, of_choice = jax.random.split(jax.random.fold_in(key, i))
            logits = 3 * jax.random.normal(of_logits, (DRAWS, size))
            if trie:
                logits = grammar.masked(trie, state, logits, left=length - i)
            ids.append(jax.random.categorical(of_choice, logits))
            state = grammar.step(trie, state, ids[-1]) if trie else state
        return jnp.stack(ids, 1)

    return np.asarray(draw(jax.random.key(seed)))


def arms() -> dict[str, Any]:
    """Nothing is trained by gradients."""
    return {"codes": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    of = lambda group, key: mean(found, "codes", group, key)
    falls = all(
        later < earlier
        for split in ("train", "test")
        for m in range(1, STAGES)
        for earlier, later in zip(
            values(found, "codes", "left", f"{split} {m}"),
            values(found, "codes", "left", f"{split} {m + 1}"),
            strict=True,
        )
    )
    return Verdict(
        clauses={
            "under the trie only items are named (exact)": of("valid", "trie") == 1.0,
            "without it: at most 0.05 of the draws": of("valid", "free") <= 0.05,
            "the error falls at every stage, in every seed": falls,
            "every item has a name of its own": of("items", "distinct") == 1.0,
        },
        figures={
            f"{group} {k}": spread(values(found, "codes", group, k))
            for group, keys in (
                ("left", [f"{s} {m}" for s in ("train", "test") for m in range(1, STAGES + 1)]),
                ("valid", ["trie", "free"]),
            )
            for k in keys
        },
    )
