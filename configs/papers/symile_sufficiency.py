"""Symile's sufficiency on the joint model: the same weights generate b from a and c, and retrieve it from both.

    python -m mm.papers run symile_sufficiency

Data as `symile`, a token for each: a and b are four fair bits, c is their exclusive or with probability p. Asked:
b, once generated from a and c, once found among all 16 by the product of embeddings.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from data_pipelines.xor import Xor
from mm.config import Data, Experiment, Optim
from mm.data.batches import TokenTable
from mm.evals.towers import rows_of
from mm.generate.sampling import Sampler
from mm.models.encoder_decoder import Model
from mm.objectives.contrastive.forms import Symile
from mm.objectives.masking import Masking
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.space import Modality, TokenSpace, Vector, Vocabulary
from mm.tasks import Run
from mm.tasks.joint import Contrast, Joint

BITS = 4
WEIGHTS = {"masked": (1.0, 0.0), "symile": (0.0, 0.3), "joint": (1.0, 0.3)}
PAPER = Paper(
    title="Contrasting with Symile: what its embeddings keep, the decoder says (one model for both)",
    numbers=(3,),
    row="3",
    status="M/U",
    formula="Symile of the three modalities' embeddings, and cross-entropy of what is hidden, in one step on one trunk.",
    expected="b generated from a and c in at least 0.97 of the ceiling; one model for both within 0.02 of the two that "
    "do one thing alone. A model that only contrasts must fail to generate, one that only generates to retrieve.",
)


@dataclasses.dataclass(kw_only=True)
class XorTokens(Xor):
    """See `mm.data.TokenSource`: a modality is one token, its bits as a number."""

    @property
    def space(self) -> TokenSpace:
        """An id for every value."""
        return TokenSpace(
            tuple(
                Modality(name=n, vocabulary=Vocabulary(name=n, size=2**self.bits), layout=Vector(n=1), order="parallel")
                for n in self.modalities
            )
        )  # fmt: skip

    def tokens(self, split: str) -> dict[str, TokenTable]:
        """All rows of a split."""
        found = self.columns(split)
        rows = {n: number(np.asarray(c[np.arange(len(c))])) for n, c in found.items()}
        return {n: TokenTable(x, np.ones(len(x), np.int32)) for n, x in rows.items()}


def number(bits: np.ndarray) -> np.ndarray:
    """Bits [n, bits], the lowest first -> int32[n, 1]."""
    return (bits @ 2 ** np.arange(bits.shape[1])).astype(np.int32)[:, None]


@dataclasses.dataclass(kw_only=True, slots=True)
class FindB:
    """Yields how often b is right: `generated` from a and c, bit by bit, and `retrieved` among all that it can be."""

    split: str = "test"
    name: str = "b"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        rows = {n: number(rows_of(run, n, self.split)) for n in ("a", "b", "c")}
        given = {n: (rows[n], np.ones(len(rows[n]), np.int32)) for n in ("a", "c")}
        made, _ = run.task.generate(run.params, given, "b", key=jax.random.key(0))
        yield "generated", float((made == rows["b"]).mean())
        every = np.arange(run.task.space.vocabulary("b").size, dtype=np.int32)
        found = {"b": (every[:, None], np.ones(len(every), np.int32))}
        a, c = (run.task.embed(run.params, {n: given[n]}) for n in ("a", "c"))
        best = (a * c @ run.task.embed(run.params, found).T).argmax(1)
        yield "retrieved", float((best == rows["b"][:, 0]).mean())


def get_config(arg: str = "joint-1.0") -> Experiment:
    """`OBJECTIVE-P`."""
    name, p = arg.split("-")
    masked, weight = WEIGHTS[name]
    return Experiment(
        name=f"symile_sufficiency-{arg}",
        task=Joint(
            model=Model(width=64, heads=2, encoder_layers=2, decoder_layers=1, embed_layers=2, embed_dim=32,
                        positions="learned", mlp="swiglu", scan=False),
            masking=Masking(visible=2, targets=1, dirichlet=0.0, nothing=1.0, several=1.0, further=1.0, unconditional=0.0),
            contrast=Contrast(weight=weight, share=1.0, form=Symile(), fused=0.0),
            masked=masked,
            samplers={"b": Sampler(temperature=0.0)},
        ),
        data=Data(source=XorTokens(bits=BITS, p=float(p)), batch_size=64),
        optim=Optim(kind="muon", lr=5e-3, warmup=50, clip_norm=0.0),
        evals=(FindB(),),
        steps=800 if p == "0.5" else 400,
        log_every=50,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """At p = 1 both must be perfect, so that it needs no model of one thing beside it."""
    return {
        name: get_config(name) for name in ("masked-0.5", "symile-0.5", "joint-0.5", "joint-1.0")
    }


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    right = {
        f"{arm} {how}": mean(found, arm, "b", how)
        for arm in found
        for how in ("generated", "retrieved")
    }
    half, whole = (0.97 * Xor(bits=BITS, p=p).ceiling() for p in (0.5, 1.0))
    clauses = {
        f"p = 0.5: generated, at least {half:.3f}": right["joint-0.5 generated"] >= half,
        f"p = 1: generated, at least {whole:.3f}": right["joint-1.0 generated"] >= whole,
        "p = 1: retrieved as often as generated, less 0.02": right["joint-1.0 retrieved"]
        >= right["joint-1.0 generated"] - 0.02,
        "p = 0.5: within 0.02 of generation alone": right["joint-0.5 generated"]
        >= right["masked-0.5 generated"] - 0.02,
        "p = 0.5: within 0.02 of Symile alone": right["joint-0.5 retrieved"]
        >= right["symile-0.5 retrieved"] - 0.02,
        "each alone fails at the other (at most 0.1)": max(
            right["masked-0.5 retrieved"], right["symile-0.5 generated"]
        )
        <= 0.1,
    }
    return Verdict(
        clauses=clauses,
        figures={
            f"{arm} {how}": spread(values(found, arm, "b", how))
            for arm in found
            for how in ("generated", "retrieved")
        },
    )
