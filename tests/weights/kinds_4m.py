"""4M's tokenizers of every kind, with random weights, and inputs for them."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from mm.tokenizers.memcodes import Bottleneck, VectorAutoencoder
from mm.tokenizers.quantizers import Categorical, VectorQuantizer
from mm.tokenizers.vit import Transformer, ViTAutoencoder
from mm.weights import m4_tokenizers as m4

SIDE = Transformer(width=24, depth=2, heads=3)
COSINE = VectorQuantizer(codes=11, width=5, unit=False, drift=True, threshold=0.5)
EUCLIDEAN = VectorQuantizer(codes=11, width=5, cosine=False, unit=False, smoothing=1e-5, threshold=0.5)  # fmt: skip


def vit(**changed) -> ViTAutoencoder:
    fields = {
        "height": 12,
        "width": 12,
        "patch": 4,
        "image_size": 12,
        "code_width": 5,
        "post_mlp": False,
    }
    return ViTAutoencoder(**fields | {"encoder": SIDE, "decoder": SIDE} | changed)


def vector(**changed) -> VectorAutoencoder:
    encoder, decoder = (
        Bottleneck(width=16, depth=2, outer=12),
        Bottleneck(width=8, depth=1, outer=6, expansion=3),
    )
    fields = {"features": 9, "code_width": 10, "encoder": encoder, "decoder": decoder}
    return VectorAutoencoder(**fields | changed)


KINDS = {
    "plain": (vit(), COSINE),
    "two sizes": (vit(decoder_image_size=20), COSINE),
    "everything": (vit(post_mlp=True, out_conv=True), COSINE),
    "unit latents": (vit(), dataclasses.replace(COSINE, unit=True, decay=0.9)),
    "euclidean": (vit(decoder=Transformer(width=12, depth=1, heads=3)), EUCLIDEAN),
    "feature map": (
        vit(rows="values", channels=7, patch=1, height=4, width=4, image_size=4),
        COSINE,
    ),
    "labels": (vit(rows="labels", channels=3, labels=6, out_conv=True), COSINE),
    "two codebooks": (vit(codebooks=2), COSINE),
    "one channel": (vit(rows="values", channels=1, height=8), COSINE),
    "memory": (vit(code_width=6, codebooks=2, memory=13), Categorical(codes=13)),
    "one memory": (vit(codebooks=1, memory=13), Categorical(codes=13)),
    "vector": (vector(codebooks=2, memory=13), Categorical(codes=13)),
    "vector, codebook": (vector(code_width=5, codebooks=1, memory=0), COSINE),
    "vector, two codebooks": (vector(code_width=5, codebooks=2, memory=0), COSINE),
}  # fmt: skip


def fresh(name: str, seed: int = 0) -> m4.Imported:
    """Random weights of a kind, no bias 0 and no scale 1."""
    network, quantizer = KINDS[name]
    rng = np.random.default_rng(seed)
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: network.build(nnx.Rngs(0)))))

    def drawn(path, a):
        name, spread = path[-1].key, a.shape[-2] ** -0.5 if len(a.shape) > 1 else 0.1
        spread = 0.1 if name in ("scale", "bias") else 1.3 * spread
        return ((name == "scale") + rng.normal(size=a.shape) * spread).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, shapes)
    blank = jax.eval_shape(quantizer.init, jax.random.key(0))
    buffers = {k: rng.normal(size=a.shape).astype(np.float32) for k, a in blank.items()}
    buffers |= {k: np.abs(a) for k, a in buffers.items() if k == "counts"}
    return m4.Imported(network, quantizer, params, buffers)


def inputs(network, seed: int = 1) -> np.ndarray:
    """What 4M's encoder would be given."""
    rng = np.random.default_rng(seed)
    if isinstance(network, VectorAutoencoder):
        return rng.normal(size=(6, network.features)).astype(np.float32)
    shape = (3, network.image_size, network.image_size)
    if network.rows == "labels":
        return rng.integers(0, network.labels, shape)
    return rng.uniform(-1, 1, (3, network.channels, *shape[1:])).astype(np.float32)
