"""The pair loss: who is a positive of whom and how much, against which negatives, measured how.

A published loss is a target matrix, a mask, weights, perhaps more negatives, and one of the reductions below.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mm.errors import UserError

Rows = tuple[jax.Array, jax.Array]
"""Loss of each row float32[R], and bool[R], which rows count."""
Reduction = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Rows]
"""(logits float32[R, C], target float32[R, C], there bool[R, C], weight float32[R, C]) -> Rows."""

LOWEST = float(jnp.finfo(jnp.float32).min)


def softmax(logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array) -> Rows:
    """Cross-entropy of softmax(logits) with the row's targets, which are made to sum to 1.

    Weights multiply the terms of the denominator.

    Source: van den Oord et al. 2018 (InfoNCE: one target); Khosla et al. 2020 (several, outside the log).
    """
    log_p = logits - log_sum(logits, there, weight)[:, None]
    total = target.sum(1)
    return -weighted(target, log_p) / nonzero(total), total > 0


def reverse_kl(eps: float = 1e-8) -> Reduction:
    """KL(softmax(logits) || targets + eps): mass where no target is costs -log eps of it.

    Source: Jiang and Ye 2023 (IRRA): similarity distribution matching.
    """
    if not eps > 0:
        raise UserError(
            f"reverse_kl: eps={eps}: above 0, or mass where no target is costs infinity"
        )

    def reduce(logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array) -> Rows:
        log_p = logits - log_sum(logits, there, weight)[:, None]
        total = target.sum(1)
        q = target / nonzero(total)[:, None]
        p = jnp.exp(jnp.where(there, log_p, LOWEST))
        return weighted(p, log_p - jnp.log(q + eps)), total > 0

    return reduce


def sigmoid(logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array) -> Rows:
    """Each entry is a question of its own: is it a positive? Summed over the row. The bias is in the logits.

    A row without a positive counts: its negatives are told apart all the same.

    Source: Zhai et al. 2023 (SigLIP).
    """
    sign = jnp.where(target > 0, 1.0, -1.0)
    return weighted(there * weight, jax.nn.softplus(-sign * logits)), there.any(1)


def hinge(margin: float = 0.2, hardest: bool = False) -> Reduction:
    """max(0, margin - positive + negative), summed over the negatives or of the hardest; margin in units of logits.

    The positive's score is the mean of the row's targets.

    Source: Faghri et al. 2018 (VSE++).
    """

    def reduce(logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array) -> Rows:
        total = target.sum(1)
        positive = weighted(target, logits) / nonzero(total)
        cost = jnp.maximum(margin - positive[:, None] + logits, 0) * weight
        cost = jnp.where(there & (target == 0), cost, 0)
        return cost.max(1) if hardest else cost.sum(1), total > 0

    return reduce


def decoupled(logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array) -> Rows:
    """As `softmax`, but positives are in no denominator. A row without a negative does not count.

    Source: Yeh et al. 2022 (DCL).
    """
    negative = there & (target == 0)
    total = target.sum(1)
    log_p = logits - log_sum(logits, negative, weight)[:, None]
    return -weighted(target, log_p) / nonzero(total), (total > 0) & negative.any(1)


def apart(logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array) -> Rows:
    """As `softmax`, but a positive's denominator holds it and the negatives, no other positive.

    Source: Zhang et al. 2023 (MeVTR: several texts of one video do not push each other away).
    """
    negative = there & (target == 0)
    rest = log_sum(logits, negative, weight)[:, None]
    cost = jnp.where(negative.any(1, keepdims=True), jax.nn.softplus(rest - logits), 0)
    total = target.sum(1)
    return weighted(target, cost) / nonzero(total), total > 0


def debiased(prior: float = 0.1, hardness: float = 0.0, temperature: float = 1.0) -> Reduction:
    """Negatives weighted by exp(hardness x logits), less the share `prior` of them that are positives unseen.

    Args:
      temperature: of logits = cosine / temperature; no negative is worth less than exp(-1 / temperature).

    Source: Chuang et al. 2020 (debiased); Robinson et al. 2021 (hard negatives).
    """
    if not (0 <= prior < 1 and temperature > 0):
        raise UserError(
            f"debiased: prior={prior}, temperature={temperature}: from 0 to below 1, and above 0"
        )

    def reduce(logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array) -> Rows:
        negative = there & (target == 0)
        number = nonzero(negative.sum(1).astype(jnp.float32))
        total = target.sum(1)
        positive = weighted(target, logits) / nonzero(total)
        mean_hardness = log_sum(hardness * logits, negative, weight) - jnp.log(number)
        all_of_them = log_sum((1 + hardness) * logits, negative, weight) - mean_hardness
        of_positives = jnp.log(prior) + jnp.log(number) + positive if prior else LOWEST
        # log(exp(a) - exp(b)), no less than the floor
        floor = jnp.log(number) - 1 / temperature
        gap = jnp.maximum(all_of_them - of_positives, 1e-6)
        rest = all_of_them + jnp.log(-jnp.expm1(-gap)) - jnp.log1p(-prior)
        rest = jnp.maximum(jnp.where(all_of_them > of_positives, rest, floor), floor)
        return jnp.logaddexp(positive, rest) - positive, (total > 0) & negative.any(1)

    return reduce


def pair_loss(
    logits_ab: jax.Array,
    target_ab: jax.Array,
    mask_a: jax.Array,
    mask_b: jax.Array,
    *,
    logits_ba: jax.Array | None = None,
    target_ba: jax.Array | None = None,
    allowed_ab: jax.Array | None = None,
    weight_ab: jax.Array | None = None,
    bank_a: jax.Array | None = None,
    bank_b: jax.Array | None = None,
    reduction: Reduction = softmax,
) -> tuple[jax.Array, jax.Array]:
    """Both directions of a contrast between a's rows and b's; computed in float32.

    Rows without a positive, and rows and columns that are absent, add nothing. Negatives are global: under jit the
    arrays are whole batches.

    Args:
      logits_ab: [A, B], already scaled by the temperature. logits_ba: [B, A], where the directions differ.
      target_ab: bool or float[A, B], not negative: how much each is the other's positive. Each direction normalises it.
        target_ba: [B, A], where the directions differ.
      mask_a: bool[A], mask_b: bool[B], who is there.
      allowed_ab: bool[A, B]; False = neither positive nor negative (a false negative).
      weight_ab: float[A, B], of an entry among a row's negatives.
      bank_a: [A, N], bank_b: [B, N]: logits of further negatives, of a's rows and of b's.

    Returns:
      (sum over both directions' rows / 2, rows counted / 2).
    """
    there = mask_a[:, None] & mask_b
    there = there if allowed_ab is None else there & allowed_ab
    target = jnp.where(there, target_ab, 0).astype(jnp.float32)
    weight = jnp.ones_like(target) if weight_ab is None else weight_ab.astype(jnp.float32)
    back = logits_ab.T if logits_ba is None else logits_ba
    target_back = target.T if target_ba is None else jnp.where(there.T, target_ba, 0)
    ab = _direction(logits_ab, target, there, weight, bank_a, mask_a, reduction)
    ba = _direction(
        back, target_back.astype(jnp.float32), there.T, weight.T, bank_b, mask_b, reduction
    )
    return (ab[0] + ba[0]) / 2, (ab[1] + ba[1]) / 2


def _direction(
    logits: jax.Array, target: jax.Array, there: jax.Array, weight: jax.Array, bank: jax.Array | None,
    rows: jax.Array, reduction: Reduction,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    logits = logits.astype(jnp.float32)
    if bank is not None:
        more = jnp.broadcast_to(rows[:, None], bank.shape)
        logits = jnp.concatenate([logits, bank.astype(jnp.float32)], 1)
        target = jnp.concatenate([target, jnp.zeros_like(bank, jnp.float32)], 1)
        there = jnp.concatenate([there, more], 1)
        weight = jnp.concatenate([weight, jnp.ones_like(bank, jnp.float32)], 1)
    # What is not there may be anything, NaN too, and must not reach a gradient.
    logits = jnp.where(there, logits, 0)
    loss, counted = reduction(logits, target, there, weight)
    return jnp.where(counted, loss, 0).sum(), counted.sum().astype(jnp.float32)


def log_sum(logits: jax.Array, there: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
    """log sum weight exp(logits) over what is there; a finite number, for nobody's use, where nothing is."""
    exponents = jnp.where(there & (weight > 0), logits, LOWEST)
    most = jax.lax.stop_gradient(exponents.max(1))
    total = jnp.where(there, weight * jnp.exp(exponents - most[:, None]), 0).sum(1)
    return jnp.where(total > 0, most + jnp.log(nonzero(total)), 0)


def weighted(weight: jax.Array, value: jax.Array) -> jax.Array:
    """Row sums of weight x value, where the weight is not 0."""
    return jnp.where(weight != 0, weight * value, 0).sum(1)


def nonzero(x: jax.Array) -> jax.Array:
    """x, and 1 where it is 0, to be divided by."""
    return jnp.where(x == 0, 1, x)
