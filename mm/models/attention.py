"""The one door to attention, so that a kernel for new hardware is one more function here and nowhere else.

A `Mask` is a rule, not an array [queries, keys]: kernels that never build that array can follow it. What is no such rule
can be given as an array, to kernels that take one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mm import sharding
from mm.errors import UserError

PADDING = -1


class Mask(NamedTuple):
    """A query attends to the keys of its own group; a causal one only to those that do not come after it.

    Attributes:
      queries: int32[B, Q], or [B, 1] where all have one group. keys: int32[B, K]; `PADDING` is nobody's group.
      causal: bool[B, Q]; None = none of them is. Where one is, queries and keys are the same tokens,
        in reading order.
      silent: bool[B], rows whose queries get zeros; None = none of them.
    """

    queries: jax.Array
    keys: jax.Array
    causal: jax.Array | None = None
    silent: jax.Array | None = None

    @classmethod
    def of_keys(cls, there: jax.Array) -> "Mask":
        """Every query attends to the keys that are there, bool[B, K]."""
        keys = jnp.where(there, 0, PADDING)
        return cls(jnp.zeros_like(keys[:, :1]), keys)

    def dense(self) -> jax.Array:
        """bool[B, 1, Q or 1, K]: who attends to whom."""
        allowed = self.queries[:, :, None] == self.keys[:, None, :]
        if self.causal is not None:
            place = jnp.arange(self.keys.shape[1])
            allowed &= (place[:, None] >= place) | ~self.causal[:, :, None]
        return allowed[:, None]


def attention(
    q_bhqd: jax.Array,
    k_bhkd: jax.Array,
    v_bhkd: jax.Array,
    mask: Mask | jax.Array | None = None,
    *,
    impl: str = "xla",
) -> jax.Array:
    """Scaled dot-product attention.

    Args:
      q_bhqd: [B, H, Q, d]. k_bhkd, v_bhkd: [B, H, K, d], any float dtype.
      mask: a rule, or bool broadcastable to [B, H, Q, K] (True = may attend; not for splash); None = everything. What a
        query gets that may attend to nothing is finite and meant to be thrown away.
      impl: one of `IMPLEMENTATIONS`.

    Returns:
      [B, H, Q, d] in the dtype of `v_bhkd`. Scores and softmax are float32.

    Raises:
      UserError: an `impl` that does not run on this hardware. ValueError: one that does not exist.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"attention {impl!r} does not exist; known: {', '.join(IMPLEMENTATIONS)}")
    out = IMPLEMENTATIONS[impl](q_bhqd, k_bhkd, v_bhkd, mask)
    if isinstance(mask, Mask) and mask.silent is not None:
        out = jnp.where(mask.silent[:, None, None, None], 0, out)
    return out


def _dense(mask: Mask | jax.Array) -> jax.Array:
    return mask.dense() if isinstance(mask, Mask) else mask


def _xla(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask | jax.Array | None) -> jax.Array:
    """Two products and a softmax; runs everywhere."""
    scale = q.shape[-1] ** -0.5
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32) * scale
    if mask is not None:
        scores = jnp.where(_dense(mask), scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask | jax.Array | None) -> jax.Array:
    """cuDNN's flash attention: NVIDIA GPUs, bfloat16 or float16. The mask becomes an array there as well."""
    if sharding.platform() != "gpu":
        raise UserError("attention=cudnn: needs an NVIDIA GPU; use xla")
    dense = None
    if mask is not None:
        dense = jnp.broadcast_to(_dense(mask), (q.shape[0], 1, q.shape[2], k.shape[2]))
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    try:
        out = jax.nn.dot_product_attention(q, k, v, mask=dense, implementation="cudnn")
    except (NotImplementedError, ValueError, RuntimeError) as e:
        raise UserError(f"attention=cudnn: {' '.join(str(e).split())[:200]}; use xla") from e
    return out.swapaxes(1, 2)


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask | jax.Array | None) -> jax.Array:
    """JAX's block-sparse flash attention for TPU; on CPU it is interpreted (right, and slow: for tests)."""
    from mm.models.splash import splash_attention  # pallas takes a second to import

    if sharding.platform() not in ("tpu", "cpu"):
        raise UserError("attention=splash: needs a TPU; use xla or cudnn")
    if isinstance(mask, jax.Array):
        raise UserError("attention=splash: this network's mask is an array; use xla")
    if mask is None:
        mask = Mask.of_keys(jnp.ones((k.shape[0], k.shape[2]), bool))
    return splash_attention(q, k, v, mask)


IMPLEMENTATIONS = {"xla": _xla, "cudnn": _cudnn, "splash": _splash}
