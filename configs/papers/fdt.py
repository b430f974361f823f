"""FDT: words and patches are described by one table of codes, and the code of a word is that of its patch.

    python -m mm.papers run fdt

Sprites with captions ("a small red heart"), which differ in shape, size and colour. The best token of each code, sparsemax (or softmax)
over 64 codes, the codes' sum is the embedding. Asked: which of the codes of an attribute's words the object's patches fire.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import mutual_info_score

from data_pipelines.sprites import ATTRIBUTES, VALUES, WORDS, Combinations
from mm.config import Data, Experiment, Optim
from mm.evals.retrieval import retrieval_metrics
from mm.evals.towers import rows_of
from mm.models.heads import Codes
from mm.models.towers import Patches, Words
from mm.objectives.contrastive.forms_with_needs import Coded
from mm.objectives.contrastive.similarity import code_weights, sparsemax
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

ARMS = {
    "sparsemax": Codes(start=0.02),
    "softmax": Codes(start=0.02, sparse=False),
    "own-tables": Codes(start=0.02, shared=False),
}
NAMED = ("shape", "size", "colour")
OBJECT = np.array([0, 1, 4, 5])  # of 16 patches: the object is always at the top left
PAPER = Paper(
    title="Revisiting Multimodal Representation in Contrastive Learning: From Patch and Token Embeddings to Finite Discrete Tokens (FDT)",
    numbers=(10,),
    row="39",
    status="U",
    formula="Of every code the largest product with a token / sqrt(width), sparsemax over codes, and the codes' weighted sum is a "
    "picture's or a caption's embedding: softmax cross-entropy of pairs, both ways.",
    expected="mutual information of the code that a word fires and the code, of all that words of its attribute fire, that the "
    "object's patches fire most: at least half the attribute's entropy, for shape, size and colour; a table for each modality must fail "
    "(at most a quarter). More padding changes nothing (1e-6), where padding's products are 0 it must (1e-3).",
    seeds=3,
)


@dataclasses.dataclass(kw_only=True, slots=True)
class Fired:
    """Per attribute: mutual information of the codes of word and patches / the attribute's entropy, share of rows where both
    are the same; recall at 1 of captions by pictures (by combination), and how many codes are used at once."""

    split: str = "test"
    name: str = "fired"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        task, head, names = run.task, run.task.head(run.params), ("image", "caption")
        rows = {n: rows_of(run, n, self.split) for n in names}

        def look(rows: dict[str, jax.Array]) -> Any:
            tokens = [task.tokens(run.params, n, rows[n]) for n in names]
            products = [x @ head.table(m).T for m, (x, _) in enumerate(tokens)]
            return products, [head(m, *t) for m, t in enumerate(tokens)]

        products, coded = jax.tree.map(np.asarray, jax.jit(look)(rows))
        patches = products[0][:, OBJECT].max(1)
        said = rows_of(run, "attributes", self.split)[:, 0]
        for name in NAMED:
            value = said[:, ATTRIBUTES.index(name)]
            ids = np.array([WORDS.index(VALUES[name][v]) for v in value])
            place = (rows["caption"] == ids[:, None]).argmax(1)
            word = products[1][np.arange(len(ids)), place].argmax(1)
            fired = np.unique(word)
            patch = fired[patches[:, fired].argmax(1)]
            entropy = mutual_info_score(value, value)
            yield f"{name} information", float(mutual_info_score(word, patch) / entropy)
            yield f"{name} same", float((word == patch).mean())
        group = run.data.order(self.split, 0, 0)["group"]
        (weights, x), (_, y) = coded
        yield "r1", retrieval_metrics(x, y, group, group)["r1"]
        yield "codes of a picture", float((weights > 0).sum(1).mean())


def padded(seed: int) -> dict[str, Any]:
    """Largest change of weights by 20 more places of padding, of tokens that are far from all codes: masked, and with padding's
    products set to 0, as in the released code (max then finds the 0)."""
    rng = np.random.default_rng(seed)
    tokens, codes = 1 + rng.normal(size=(8, 2, 16)), rng.normal(size=(64, 16)) - 1
    more = np.concatenate([tokens, rng.normal(size=(8, 20, 16))], 1)
    there = np.arange(22) < 2

    def released(x: jax.Array, there: jax.Array) -> jax.Array:
        return sparsemax((x @ codes.T / 4 * there[:, None]).max(1))

    masked = lambda x, there: code_weights(x, jnp.tile(there, (len(x), 1)), codes)
    off = lambda f: float(jnp.abs(jax.jit(f)(tokens, there[:2]) - jax.jit(f)(more, there)).max())
    return {"padding": {"masked": off(masked), "released": off(released)}}


def get_config(arg: str = "sparsemax") -> Experiment:
    """See `ARMS`."""
    return Experiment(
        name=f"fdt-{arg}",
        task=Towers(
            encoders={
                "image": Patches(side=8, hidden=32, layers=1, heads=2),
                "caption": Words(vocabulary=len(WORDS), hidden=32, layers=0),
            },
            width=32, objectives={"contrast": (1.0, Coded())}, head=ARMS[arg],
        ),
        data=Data(source=Combinations(modalities=("image", "caption", "attributes"), rows=(10_000, 500, 1000)), batch_size=64),
        optim=Optim(lr=2e-3, warmup=50, b2=0.98, weight_decay=0.01, clip_norm=0.0),
        evals=(Fired(),),
        steps=1200,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Any]:
    """See `ARMS`, and padding, which is not trained."""
    return {name: get_config(name) for name in ARMS} | {"padded": padded}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    shared = {a: {n: mean(found, a, "fired", f"{n} information") for n in NAMED} for a in ARMS}
    off = {k: values(found, "padded", "padding", k) for k in ("masked", "released")}
    return Verdict(
        clauses={
            f"sparsemax, {n}: at least half the entropy": shared["sparsemax"][n] >= 0.5 for n in NAMED
        }
        | {
            f"own tables, {n}: fail (at most a quarter)": shared["own-tables"][n] <= 0.25 for n in NAMED
        }
        | {
            "more padding changes nothing (1e-6)": max(off["masked"]) <= 1e-6,
            "padding's products at 0 fail (1e-3)": min(off["released"]) >= 1e-3,
        },
        figures={
            f"{a} {k}": spread(values(found, a, "fired", k))
            for a in ARMS
            for k in (*(f"{n} {w}" for n in NAMED for w in ("information", "same")), "r1", "codes of a picture")
        }
        | {"released, off by": spread(off["released"])},
    )  # fmt: skip
