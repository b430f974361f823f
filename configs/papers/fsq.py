"""Finite scalar quantization, and what a codebook loses: usage and reconstruction from 16 codes to 16,384.

    python -m mm.papers run fsq

Rows of 32 numbers made of 8, tanh(z W1) W2; an MLP of 128 on both sides of the codes, 1,500 steps of 256 rows. Beside FSQ: a codebook
trained by gradients (the first form of VQ), one kept by running averages, that with restarts (mm's), a fixed table behind a learned
matrix (SimVQ), and sign codes (LFQ, BSQ).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipelines.latent import Mixed
from mm.config import Data, Experiment, Optim
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.space import Vector
from mm.tasks import Run, Terms
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers.quantizers import (
    FSQ,
    LearnedQuantizer,
    SignQuantizer,
    VectorQuantizer,
    code_terms,
)

LEVELS = {4: (5, 3), 6: (8, 8), 8: (8, 6, 5), 10: (8, 5, 5, 5), 12: (7, 5, 5, 5, 5), 14: (8, 8, 8, 6, 5)}  # fmt: skip
"""Of FSQ, by the bits of the codebook that they are nearest to (Mentzer et al. 2023, table 1, but the first)."""
WIDTH = 8
MAKERS = {
    "fsq": lambda bits: FSQ(levels=LEVELS[bits]),
    "vq": lambda bits: LearnedQuantizer(codes=2**bits, width=WIDTH),
    "ema": lambda bits: VectorQuantizer(codes=2**bits, width=WIDTH, cosine=False, threshold=0.0, smoothing=1e-5),
    "restarts": lambda bits: VectorQuantizer(codes=2**bits, width=WIDTH, cosine=False),
    "simvq": lambda bits: LearnedQuantizer(codes=2**bits, width=WIDTH, linear=True),
    "lfq": lambda bits: SignQuantizer(bits=bits, temperature=1.0),
    "bsq": lambda bits: SignQuantizer(bits=bits, spherical=True, temperature=1.0),
}  # fmt: skip
SIZES = {name: tuple(LEVELS) for name in ("fsq", "vq", "ema", "restarts", "lfq", "bsq")} | {
    "simvq": (10, 12)
}
WEIGHTS = {"reconstruction": 1.0, "commitment": 0.25, "codebook": 1.0, "entropy": 0.1}
PAPER = Paper(
    title="Finite Scalar Quantization: VQ-VAE Made Simple (FSQ); VQ-VAE, SimVQ, LFQ (MAGVIT-v2) and BSQ beside it",
    numbers=(2, 43, 44),
    row="41",
    status="M",
    formula="Each of a few features is bounded by tanh and rounded to a few levels; the code is the tuple of levels, the gradient that "
    "of the identity.",
    expected="FSQ uses at least 90% of up to 4,096 codes; running averages with restarts reconstruct 1,024 codes at 0.22 of the variance or "
    "less; the first form of VQ fails: less than 10% of 1,024 codes in use.",
)  # fmt: skip


@dataclasses.dataclass(kw_only=True, slots=True)
class Mlp:
    """Settings of a network for rows float32[features]: one hidden layer on each side of one latent."""

    features: int = 32
    hidden: int = 128
    latent: int = 8

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.features,), np.float32)

    @property
    def grid(self) -> Vector:
        return Vector(n=1)

    def build(self, rngs: nnx.Rngs) -> "MlpNetwork":
        return MlpNetwork(self, rngs=rngs)


class MlpNetwork(nnx.Module):
    """See `mm.tokenizers.autoencoder.Network`."""

    def __init__(self, s: Mlp, *, rngs: nnx.Rngs):
        self.encoder_in = nnx.Linear(s.features, s.hidden, rngs=rngs)
        self.encoder_out = nnx.Linear(s.hidden, s.latent, rngs=rngs)
        self.decoder_in = nnx.Linear(s.latent, s.hidden, rngs=rngs)
        self.decoder_out = nnx.Linear(s.hidden, s.features, rngs=rngs)

    def prepare(self, raw: jax.Array) -> jax.Array:
        return raw

    def encode(self, x: jax.Array) -> jax.Array:
        return self.encoder_out(jax.nn.gelu(self.encoder_in(x)))[:, None]

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        return self.decoder_out(jax.nn.gelu(self.decoder_in(vectors_bnd[:, 0])))

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        return {"reconstruction": (jnp.square(out - x).sum(), jnp.float32(x.size))}

    def render(self, out: jax.Array) -> jax.Array:
        return out


@dataclasses.dataclass(kw_only=True, slots=True)
class Codes:
    """Yields of test rows `mse` through their ids, and `again`, the share of ids that what comes back has once more; of
    training rows `usage` and `perplexity`, as shares of the codebook."""

    name: str = "codes"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        quantizer = run.task.settings.quantizer
        weights, arrays = run.task.parts(run.params, run.buffers)

        @jax.jit
        def through(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            network = nnx.merge(run.task.structure, weights)
            ids = quantizer.quantize(arrays, network.encode(x)).ids
            return ids, network.decode(quantizer.lookup(arrays, ids))

        train, test = (run.data.raw(split)["x"] for split in ("train", "test"))
        x = test[np.arange(len(test))]
        ids, back = through(x)
        yield "mse", float(jnp.square(back - x).mean())
        yield "again", float((through(back)[0] == ids).mean())
        parts = np.array_split(np.arange(len(train)), 10)
        used = code_terms(jnp.concatenate([through(train[p])[0] for p in parts]), quantizer.codes)
        yield "usage", float(used["usage"][0] / quantizer.codes)
        yield "perplexity", float(used["perplexity"][0] / quantizer.codes)


def get_config(arg: str = "fsq-10") -> Experiment:
    """`QUANTIZER-BITS`."""
    name, bits = arg.split("-")
    quantizer = MAKERS[name](int(bits))
    quantizer.validate()
    return Experiment(
        name=f"fsq-{arg}",
        task=Autoencode(column="x", network=Mlp(latent=quantizer.width), quantizer=quantizer, weights=dict(WEIGHTS)),
        data=Data(source=Mixed(), batch_size=256),
        optim=Optim(lr=3e-3, warmup=50, b2=0.99, weight_decay=0.0, clip_norm=0.0, ema=0.0),
        evals=(Codes(),),
        steps=1500,
        log_every=250,
    )  # fmt: skip


def arms() -> dict[str, Any]:
    """Every quantizer at its sizes."""
    names = [f"{name}-{bits}" for name, sizes in SIZES.items() for bits in sizes]
    return {name: get_config(name) for name in names}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    of = lambda arm, key: mean(found, arm, "codes", key)
    return Verdict(
        clauses={
            "FSQ uses at least 0.9 of 16 .. 4,096 codes": min(
                of(f"fsq-{b}", "usage") for b in LEVELS if b <= 12
            ) >= 0.9,
            "restarts at 1,024 codes: at most 0.22 of the variance left": of("restarts-10", "mse") <= 0.22,
            "the first form of VQ fails: at most 0.1 of 1,024 codes": of("vq-10", "usage") <= 0.1,
            "what comes back has the same code again, at least 0.99 (1,024 codes, restarts)": of("restarts-10", "again") >= 0.99,
        },
        figures={
            f"{arm} {k}": spread(values(found, arm, "codes", k))
            for arm in arms()
            for k in ("mse", "usage", "perplexity", "again")
        },
    )  # fmt: skip
