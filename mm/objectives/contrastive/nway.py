"""Contrast among n modalities. Each function is one answer to: what makes n embeddings a tuple that belongs together?

Embeddings are z_mbe, unit float[M, B, E]; `there` bool[M, B] says which exist. All return (sum over what counts, how
much counts), float32 scalars; what is absent adds nothing, and nothing is NaN.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mm.objectives.contrastive.pair import log_sum, pair_loss, softmax

Sum = tuple[jax.Array, jax.Array]


def all_pairs(
    z_mbe: jax.Array, there: jax.Array, target: jax.Array, scale: jax.Array,
    loss: Callable[..., Sum] = pair_loss,
) -> Sum:  # fmt: skip
    """The pair loss summed over all unordered pairs of modalities.

    Args:
      target: bool or float[B, B], see `pair_loss`. scale: inverse temperature, scalar.
    """
    total, count = jnp.zeros(()), jnp.zeros(())
    for i in range(z_mbe.shape[0]):
        for j in range(i + 1, z_mbe.shape[0]):
            s, c = loss(scale * z_mbe[i] @ z_mbe[j].T, target, there[i], there[j])
            total, count = total + s, count + c
    return total, count


def one_to_k(z_mbe: jax.Array, there: jax.Array, scale: jax.Array) -> Sum:
    """The first modality (images) and K others (texts in K languages): an image has K positives among all B K texts, a
    text one among B images. Both directions' means count alike; with one other modality it is InfoNCE.

    Source: Hu et al. 2024 (1-to-K).
    """
    others, size, width = z_mbe.shape[0] - 1, z_mbe.shape[1], z_mbe.shape[2]
    texts, exist = z_mbe[1:].reshape(-1, width), there[1:].reshape(-1)
    logits = (scale * z_mbe[0] @ texts.T).astype(jnp.float32)
    usable = there[0][:, None] & exist
    own = jnp.tile(jnp.eye(size), (1, others)) * usable
    ones = jnp.ones_like(logits)
    means = []
    for x, target, allowed, weight in (
        (logits, own, usable, ones),
        (logits.T, own.T, usable.T, ones.T),
    ):
        loss, counted = softmax(jnp.where(allowed, x, 0), target, allowed, weight)
        means.append(jnp.where(counted, loss, 0).sum() / jnp.maximum(counted.sum(), 1))
    some = (own.sum() > 0).astype(jnp.float32)
    return (means[0] + means[1]) / 2 * some, some


def fused_to_hidden(
    fused_be: jax.Array, z_mbe: jax.Array, hidden: jax.Array, there: jax.Array,
    target: jax.Array, scale: jax.Array,
) -> Sum:  # fmt: skip
    """Fused embeddings against the unimodal ones of modalities of which nothing was visible.

    Args:
      fused_be: unit [B, E]. there: what can be embedded.
      hidden: bool[M, B], where the fused embedding has seen nothing of modality m: the rows that count.
    """
    total, count = jnp.zeros(()), jnp.zeros(())
    for m in range(z_mbe.shape[0]):
        s, c = pair_loss(scale * fused_be @ z_mbe[m].T, target, hidden[m], there[m])
        total, count = total + s, count + c
    return total, count


def comm(first_be: jax.Array, second_be: jax.Array, alone_mbe: jax.Array, scale: jax.Array) -> Sum:
    """Two augmentations of all modalities, fused, against each other and against each modality fused alone.

    InfoNCE(first, second) + half the sum over m of InfoNCE(alone m, first) + InfoNCE(alone m, second).

    Args:
      first_be, second_be: unit [B, E]. alone_mbe: unit [M, B, E].

    Source: Dufumier et al. 2025 (CoMM).
    """
    size = len(first_be)
    there, own = jnp.ones(size, bool), jnp.eye(size, dtype=bool)
    info = lambda x, y: pair_loss(scale * x @ y.T, own, there, there)[0]
    parts = sum((info(z, first_be) + info(z, second_be) for z in alone_mbe), jnp.zeros(()))
    return info(first_be, second_be) + parts / 2, jnp.float32(size)


def symile(
    z_mbe: jax.Array, there: jax.Array, group: jax.Array, scale: jax.Array, key: jax.Array,
    every: bool = False,
) -> Sum:  # fmt: skip
    """Multilinear inner products: each modality in turn is told which tuple of all the others is its own.

    Negatives of an example are B - 1 tuples, each modality of them permuted on its own (n form), or all B^(M-1) tuples
    (`every`). A tuple whose parts all are of the example's group is no negative. Of a tuple those parts are multiplied
    that exist; products of k unit vectors shrink, so the scale grows by E^(1/2) with every factor beyond two.

    Args:
      group: int32[B], same number = the same example. scale: that of two modalities.

    Source: Saporta et al. 2024 (Symile); the growth of the scale is derived, not theirs.
    """
    total, count = jnp.zeros(()), jnp.zeros(())
    for m in range(z_mbe.shape[0]):
        others = [k for k in range(z_mbe.shape[0]) if k != m]
        context, parts, rows = _contexts(z_mbe, there, others, jax.random.fold_in(key, m), every)
        own, own_parts, _ = _contexts(z_mbe, there, others, None, False)
        hit = (group[rows][None] == group[:, None, None]).all(-1)  # [B, tuples]
        growth = lambda number: z_mbe.shape[-1] ** ((number - 1) / 2)
        negative = scale * growth(parts) * (z_mbe[m] @ context.T)
        positive = scale * growth(own_parts) * (z_mbe[m] * own).sum(1)
        logits = jnp.concatenate([positive[:, None], negative], 1).astype(jnp.float32)
        usable = jnp.concatenate([jnp.ones((len(group), 1), bool), (parts > 0) & ~hit], 1)
        target = jnp.zeros_like(logits).at[:, 0].set(1.0)
        logits = jnp.where(usable, logits, 0)
        loss, counted = softmax(logits, target, usable, jnp.ones_like(logits))
        counted &= there[m] & (own_parts > 0)
        total, count = total + jnp.where(counted, loss, 0).sum(), count + counted.sum()
    return total, count.astype(jnp.float32)


def _contexts(
    z_mbe: jax.Array, there: jax.Array, others: list[int], key: jax.Array | None, every: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tuples of the other modalities: products [T, E] of the parts that exist, how many, and their rows [T, others].

    Without a key the examples' own ones.
    """
    size = z_mbe.shape[1]
    if every:
        rows = jnp.stack(jnp.meshgrid(*[jnp.arange(size)] * len(others), indexing="ij"), -1)
        rows = rows.reshape(-1, len(others))
    elif key is None:
        rows = jnp.tile(jnp.arange(size)[:, None], (1, len(others)))
    else:
        keys = jax.random.split(key, len(others))
        rows = jnp.stack([jax.random.permutation(k, size) for k in keys], 1)
    product = jnp.ones((len(rows), z_mbe.shape[-1]), jnp.float32)
    parts = jnp.zeros(len(rows), jnp.int32)
    for i, k in enumerate(others):
        exists = there[k][rows[:, i]]
        product *= jnp.where(exists[:, None], z_mbe[k][rows[:, i]], 1)
        parts += exists
    return product, parts, rows


def gram(
    z_mbe: jax.Array, there: jax.Array, target: jax.Array, scale: jax.Array, anchor: int = 0,
    smoothing: float = 0.1,
) -> Sum:  # fmt: skip
    """Small volumes belong together: the pair loss of -volume(anchor of one example, all others of another).

    Args:
      anchor: the modality that every tuple needs. smoothing: of each row's targets, spread over all columns that exist.

    Source: Cicchetti et al. 2025 (GRAM).
    """
    others = [k for k in range(z_mbe.shape[0]) if k != anchor]
    rest = there[jnp.array(others)]
    volumes = volume(z_mbe[anchor], z_mbe[jnp.array(others)], rest)
    logits, there_b = -scale * volumes, rest.any(0)
    hard, count = pair_loss(logits, target, there[anchor], there_b)
    if not smoothing:
        return hard, count
    own = jnp.where(there[anchor][:, None] & there_b, target, 0)
    even = lambda x: jnp.broadcast_to(x.any(1, keepdims=True), x.shape)  # rows that count
    spread, _ = pair_loss(logits, even(own), there[anchor], there_b, target_ba=even(own.T))
    return (1 - smoothing) * hard + smoothing * spread, count


def volume(anchor_ae: jax.Array, others_kbe: jax.Array, there: jax.Array) -> jax.Array:
    """Volume of the parallelotope of anchor a and the others of example b: float32[A, B].

    det G = det R (1 - c' R^-1 c), R the Gram matrix of the others, c their products with the anchor: memory A B k. One
    that is absent is a unit vector orthogonal to all, which changes no volume. The root's slope at 0 is finite.
    """
    others = jnp.where(there[..., None], others_kbe, 0).astype(jnp.float32)
    gram_bkk = jnp.einsum("kbe,lbe->bkl", others, others)
    absent = jnp.where(
        there.T, 1e-6, 1.0
    )  # on the diagonal: 1 in place of 0, and what keeps R invertible
    factor = jnp.linalg.cholesky(gram_bkk + jnp.eye(len(others)) * absent[:, None])
    products = jnp.einsum("ae,kbe->bka", anchor_ae.astype(jnp.float32), others)
    solved = jax.lax.linalg.triangular_solve(factor, products, left_side=True, lower=True)
    det_rest = jnp.square(jnp.diagonal(factor, axis1=1, axis2=2).prod(1))
    det = det_rest[:, None] * (1 - jnp.square(solved).sum(1))
    return jnp.sqrt(jnp.maximum(det, 0) + 1e-6).T


def triangle(
    z_mbe: jax.Array, there: jax.Array, target: jax.Array, scale: jax.Array, anchor: int = 0
) -> Sum:
    """Small triangles belong together: the pair loss of -area(anchor of one example, the two others of another).

    Source: Cicchetti et al. 2025 (TRIANGLE), with its root, which their code leaves out.
    """
    b, c = (k for k in range(3) if k != anchor)
    areas = area(z_mbe[anchor], z_mbe[b], z_mbe[c])
    return pair_loss(-scale * areas, target, there[anchor], there[b] & there[c])


def area(anchor_ae: jax.Array, b_be: jax.Array, c_be: jax.Array) -> jax.Array:
    """Area of the triangle of anchor a, b and c of example b, all unit vectors: float32[A, B]."""
    anchor, b, c = (x.astype(jnp.float32) for x in (anchor_ae, b_be, c_be))
    ab, ac, bc = anchor @ b.T, anchor @ c.T, (b * c).sum(1)
    u, v, uv = 2 - 2 * ab, 2 - 2 * ac, 1 - ab - ac + bc
    return jnp.sqrt(jnp.maximum(u * v - jnp.square(uv), 0) + 1e-12) / 2


def mv_infonce(z_mbe: jax.Array, there: jax.Array, scale: jax.Array) -> Sum:
    """All pairs of views of an example are positives of one row; all pairs with other examples its negatives.

    Source: Koromilas et al. 2025 (multi-view InfoNCE).
    """
    views, size, _ = z_mbe.shape
    logits = scale * jnp.einsum("lbe,mce->blmc", z_mbe, z_mbe).astype(jnp.float32)
    exists = there.T[:, :, None, None] & there[None, None]
    same = jnp.eye(size, dtype=bool)[:, None, None, :]
    positive = exists & same & ~jnp.eye(views, dtype=bool)[None, :, :, None]
    negative = exists & ~same
    flat = lambda x: x.reshape(size, -1)
    top = log_sum(flat(logits), flat(positive))
    all_of_them = log_sum(flat(logits), flat(positive | negative))
    counted = flat(positive).any(1) & flat(negative).any(1)
    return jnp.where(counted, all_of_them - top, 0).sum(), counted.sum().astype(jnp.float32)


def mv_dhel(z_mbe: jax.Array, there: jax.Array, scale: jax.Array) -> Sum:
    """Alignment of an example's views, and uniformity within each view: negatives are of the same view only.

    A sum of log-sum-exps; their product overflows float32 at four views.

    Source: Koromilas et al. 2025 (multi-view DHEL).
    """
    views, size, _ = z_mbe.shape
    z = z_mbe.astype(jnp.float32)
    spread = jnp.zeros(size)
    for m in range(views):
        negative = there[m][:, None] & there[m] & ~jnp.eye(size, dtype=bool)
        spread += jnp.where(negative.any(1), log_sum(scale * z[m] @ z[m].T, negative), 0)
    a, b = jnp.triu_indices(views, 1)
    positive = (there[a] & there[b]).T
    aligned = log_sum(scale * (z[a] * z[b]).sum(-1).T, positive)
    counted = positive.any(1)
    return jnp.where(counted, spread - aligned, 0).sum(), counted.sum().astype(jnp.float32)
