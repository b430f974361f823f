"""The one door to attention, so that a kernel for new hardware is one more branch here and nowhere else."""

import jax
import jax.numpy as jnp


def attention(
    q_bhqd: jax.Array,
    k_bhkd: jax.Array,
    v_bhkd: jax.Array,
    mask: jax.Array | None = None,
    *,
    impl: str = "xla",
) -> jax.Array:
    """Scaled dot-product attention.

    Args:
      q_bhqd: [B, H, Q, d]. k_bhkd, v_bhkd: [B, H, K, d], any float dtype.
      mask: bool, broadcastable to [B, H, Q, K]; True = may attend. A row that may attend nothing
        attends everything equally (as 4M does): its result is finite and meant to be thrown away.
      impl: the kernel; `xla` runs everywhere.

    Returns:
      [B, H, Q, d] in the dtype of `v_bhkd`. Scores and softmax are float32.

    Raises:
      ValueError: an `impl` that does not exist.
    """
    if impl != "xla":
        raise ValueError(f"attention impl {impl!r} does not exist; known: xla")
    scale = q_bhqd.shape[-1] ** -0.5
    scores = (
        jnp.einsum("bhqd,bhkd->bhqk", q_bhqd, k_bhkd, preferred_element_type=jnp.float32) * scale
    )
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_bhkd.dtype)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, v_bhkd)
