"""Small changes of frozen weights: factors of low rank beside every kernel, which change nothing before they are trained."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from mm.optim import decays

Adapters = Any
"""As the parameters, with {"a": [..., in, rank], "b": [..., rank, out]} in the place of every kernel, None elsewhere."""


def low_rank(params: Any, rank: int, key: jax.Array) -> Adapters:
    """Fresh adapters: a is normal with variance 1 / in, b is 0.

    Source: Hu et al. 2022 (LoRA).
    """
    leaves, tree = jax.tree.flatten(params)

    def factors(x: jax.Array, kernel: bool, key: jax.Array) -> dict[str, jax.Array] | None:
        if not kernel:
            return None
        *outer, d_in, d_out = x.shape
        a = jax.random.normal(key, (*outer, d_in, rank)) / d_in**0.5
        return {"a": a, "b": jnp.zeros((*outer, rank, d_out))}

    kernels, keys = jax.tree.leaves(decays(params)), jax.random.split(key, len(leaves))
    return tree.unflatten([factors(*x) for x in zip(leaves, kernels, keys, strict=True)])


def adapted(params: Any, adapters: Adapters) -> Any:
    """The parameters with a b added to every kernel; `params` themselves, to the bit, where b is 0."""
    add = lambda x, f: x if f is None else x + f["a"] @ f["b"]
    return jax.tree.map(add, params, adapters)


ADAPTERS = "adapters"
"""Where a model that has some keeps them among its parameters."""


def with_adapters(params: dict[str, Any], rank: int, key: jax.Array) -> dict[str, Any]:
    """The parameters with fresh adapters of their kernels beside them."""
    flat = traverse_util.flatten_dict(low_rank(params, rank, key))
    return params | {
        ADAPTERS: traverse_util.unflatten_dict({p: x for p, x in flat.items() if x is not None})
    }


def without_adapters(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that `with_adapters` was given, the adapters added to the kernels; as they are where there are none."""
    if ADAPTERS not in params:
        return params
    flat: dict[Any, Any] = traverse_util.flatten_dict(
        {n: x for n, x in params.items() if n != ADAPTERS}
    )
    factors: dict[Any, Any] = traverse_util.flatten_dict(params[ADAPTERS])
    for path in {p[:-1] for p in factors}:
        flat[path] = flat[path] + factors[*path, "a"] @ factors[*path, "b"]
    return traverse_util.unflatten_dict(flat)
