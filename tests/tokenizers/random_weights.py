"""Weights for tests that train nothing: drawn by NumPy, because compiling a network's own start takes longer than using it."""

from typing import Any

import jax
import numpy as np

from mm.tokenizers import autoencoder


def random_weights(settings: Any, seed: int = 0) -> dict[str, Any]:
    """Of a size at which signals neither vanish nor grow: matrices by their inputs, vectors near 1."""
    rng = np.random.default_rng(seed)

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        drawn = rng.normal(size=shape.shape)
        if len(shape.shape) < 2:
            return np.float32(1 + 0.1 * drawn)
        return np.float32(drawn * np.prod(shape.shape[:-1]) ** -0.5)

    return jax.tree.map(draw, autoencoder.split(settings)[1])
