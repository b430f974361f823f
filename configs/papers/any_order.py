"""Masked diffusion is any-order generation: three likelihood bounds are one number, an unweighted cosine schedule is none.

    python -m mm.papers run any_order

All 243 sequences of 5 tokens out of 3, all masks and all 120 orders are gone through; the predictor is a random table of
conditionals, one for every masked sequence and place. Nothing is trained.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mm.objectives import likelihood
from mm.papers import Found, Paper, Verdict, spread, values

LENGTH, VALUES, DRAWS = 5, 3, 1000
SEQUENCES = np.array(list(itertools.product(range(VALUES), repeat=LENGTH)))
MASKS = np.array(list(itertools.product([False, True], repeat=LENGTH)))  # True = hidden
ORDERS = np.array(list(itertools.permutations(range(LENGTH))))
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(40)
PAPER = Paper(
    title="Masked diffusion as any-order generation (UniDisc, MMaDA, LLaDA): a claim of this project beside them",
    numbers=(),
    row="49",
    status="M",
    formula="Mean over orders of -log p = L x the mean, over k = 1 .. L and masks of k tokens, of the mean cross-entropy of "
    "hidden tokens = the integral over t of 1/t x the summed cross-entropy of tokens hidden with probability t.",
    expected="all three within 1e-4 (relative), so with a cosine schedule weighted by 1 / its density; the unweighted cosine "
    "schedule must fail: off by more than 1e-3 on every table, and 1% below the bound on some, so it is none.",
)


def table(seed: int) -> np.ndarray:
    """log p float64[(V + 1)^L, L, V] of each place, given a sequence in which V stands for hidden."""
    logits = 1.5 * np.random.default_rng(seed).normal(size=((VALUES + 1) ** LENGTH, LENGTH, VALUES))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def row_of(ids: Any, hidden: Any) -> Any:
    """int[..., L] and bool[..., L] -> rows of `table`, int[...]."""
    return (ids * ~hidden + VALUES * hidden) @ (VALUES + 1) ** np.arange(LENGTH)


def bounds(log_p: np.ndarray) -> dict[str, float]:
    """Nats per sequence, exactly, over all sequences alike."""
    row = row_of(SEQUENCES[:, None], MASKS)
    entropy = -np.take_along_axis(log_p[row], SEQUENCES[:, None, :, None], -1)[..., 0].mean(0)
    number = MASKS.sum(1)
    summed = (entropy * MASKS).sum(1)

    ahead = np.argsort(ORDERS, 1)[:, None] >= np.arange(LENGTH)[:, None]  # [orders, step, place]
    index = ahead @ 2 ** np.arange(LENGTH)[::-1]  # of MASKS
    any_order = entropy[index, ORDERS].sum(1).mean()

    per_token = np.array([(summed / k)[number == k].mean() for k in range(1, LENGTH + 1)])
    at = lambda t: summed @ (t ** number[:, None] * (1 - t) ** (LENGTH - number[:, None]))
    u = (NODES + 1) / 2
    rate = np.cos(np.pi * u / 2)
    density = 2 / (np.pi * np.sqrt(1 - rate**2))
    share = 2 / np.pi * np.diff(np.arcsin(np.arange(LENGTH + 1) / LENGTH))  # of k = ceil(rate L)
    return {
        "any order": float(any_order),
        "uniform k": float(LENGTH * per_token.mean()),
        "1/t": float((at(u) / u) @ NODE_WEIGHTS / 2),
        "cosine, weighted": float((at(rate) / rate / density) @ NODE_WEIGHTS / 2),
        "cosine, unweighted": float(LENGTH * per_token @ share),
    }


def estimates(log_p: np.ndarray, seed: int) -> dict[str, float]:
    """The same by random masks (`mm.objectives.likelihood`), each sequence `DRAWS` times."""
    low, ids = jnp.asarray(log_p, jnp.float32), jnp.tile(jnp.asarray(SEQUENCES), (DRAWS, 1))
    keys = jax.random.split(jax.random.key(seed))
    draws = {"uniform k, drawn": likelihood.uniform_count, "1/t, drawn": likelihood.uniform_rate}
    ask = lambda key, draw: likelihood.nats(lambda x, h: low[row_of(x, h)], ids, draw(key, *ids.shape)).mean()  # fmt: skip
    ask = jax.jit(ask, static_argnums=1)
    return {name: float(ask(key, draw)) for key, (name, draw) in zip(keys, draws.items(), strict=True)}  # fmt: skip


def measure(seed: int) -> dict[str, Any]:
    """The any-order bound in nats, and how much larger each other one is, as a share of it."""
    log_p = table(seed)
    exact = bounds(log_p)
    nats = exact.pop("any order")
    others = exact | estimates(log_p, seed)
    return {"nats": {"any order": nats}, "excess": {n: x / nats - 1 for n, x in others.items()}}


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    excess = {n: values(found, "made", "excess", n) for n in found["made"][0]["excess"]}
    most = {name: max(map(abs, x)) for name, x in excess.items()}
    plain = excess["cosine, unweighted"]
    return Verdict(
        clauses={
            f"{n}: within 1e-4": most[n] <= 1e-4 for n in ("uniform k", "1/t", "cosine, weighted")
        }
        | {
            "drawn masks: within 1%": max(most["uniform k, drawn"], most["1/t, drawn"]) <= 0.01,
            "unweighted cosine fails that on every table (1e-3)": min(map(abs, plain)) >= 1e-3,
            "unweighted cosine: 1% below the bound on some tables": min(plain) <= -0.01,
        },
        figures={"any order, nats": spread(values(found, "made", "nats", "any order"))}
        | {f"{n}, excess": spread(x) for n, x in excess.items()},
    )
