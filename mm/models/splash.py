"""Splash attention (JAX's Pallas kernel for TPU): no array [queries, keys] is ever built.

The kernel knows groups ("segments") and one causal rule for all queries; where some are causal and others are
not it runs once for each kind. It cannot be split by the compiler, so each device calls it on its own examples
and heads.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as kernels

from mm import sharding
from mm.models.attention import PADDING, Mask

LANES = 128
"""Lengths are multiples of this; what is added belongs to the group `ADDED`, which nobody else has."""
ADDED = -2
BLOCK = 512  # of queries or keys that the kernel works on at a time, at most


def splash_attention(
    q_bhqd: jax.Array,
    k_bhkd: jax.Array,
    v_bhkd: jax.Array,
    mask: Mask,
) -> jax.Array:
    """As `attention.attention`."""
    count = q_bhqd.shape[2]
    queries, keys, causal, _ = mask
    queries = jnp.broadcast_to(queries, (q_bhqd.shape[0], count))
    # A query without a key gets the padding: the kernel would divide by zero, or count what is added here.
    lonely = ~(queries[:, :, None] == keys[:, None, :]).any(-1)
    queries = jnp.where(lonely, PADDING, queries)
    scaled = q_bhqd * q_bhqd.shape[-1] ** -0.5
    q, k, v = (_lengthened(x, 2, 0) for x in (scaled, k_bhkd, v_bhkd))
    groups = _lengthened(queries, 1, ADDED), _lengthened(keys, 1, ADDED)

    def run(is_causal: bool) -> jax.Array:
        return sharding.on_each_device(
            lambda *arrays: _kernel(*arrays, causal=is_causal), (q, k, v), groups
        )[:, :, :count]

    if causal is None:
        return run(False)
    return jnp.where(causal[:, None, :, None], run(True), run(False))


def _lengthened(x: jax.Array, axis: int, value: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % LANES)
    return jnp.pad(x, widths, constant_values=value)


def _kernel(
    q: jax.Array, k: jax.Array, v: jax.Array, queries: jax.Array, keys: jax.Array, *, causal: bool
) -> jax.Array:
    """One device's part."""
    heads, shape = q.shape[1], (q.shape[2], k.shape[2])
    one = kernels.CausalMask(shape) if causal else kernels.FullMask(shape)
    bq, bk = (math.gcd(n, BLOCK) for n in shape)
    kernel = kernels.make_splash_mha(
        kernels.MultiHeadMask([one] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=bq, block_kv=bk, block_q_dkv=bq, block_kv_dkv=bk, block_q_dq=bq, block_kv_dq=bk
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=sharding.platform() != "tpu",
    )
    segments = kernels.SegmentIds(queries, keys)
    return jax.vmap(lambda *x: kernel(*x[:3], segment_ids=x[3]))(q, k, v, segments)  # pyright: ignore[reportReturnType]
