"""Quantizers: from continuous latents to discrete codes and back, differentiable.

A quantizer is a settings object. What it keeps is a dict of arrays, `buffers`: a codebook and its running statistics,
moved by `update`, or what is `learned` by gradients as weights are.
"""

import dataclasses
from typing import Any

from mm.tokenizers.quantizers.base import (
    Buffers,
    Quantized,
    Quantizer,
    code_terms,
    normalise,
    rotated,
    straight_through,
)
from mm.tokenizers.quantizers.choice import Categorical, GumbelQuantizer, SoftQuantizer
from mm.tokenizers.quantizers.fsq import FSQ
from mm.tokenizers.quantizers.learned import LearnedQuantizer
from mm.tokenizers.quantizers.several import Product, Residual, ResidualFSQ
from mm.tokenizers.quantizers.sign import SignQuantizer
from mm.tokenizers.quantizers.vector import VectorQuantizer, ema_update, quantize, sample_far

__all__ = [
    "FSQ",
    "KINDS",
    "Buffers",
    "Categorical",
    "GumbelQuantizer",
    "LearnedQuantizer",
    "Product",
    "Quantized",
    "Quantizer",
    "Residual",
    "ResidualFSQ",
    "SignQuantizer",
    "SoftQuantizer",
    "VectorQuantizer",
    "code_terms",
    "ema_update",
    "from_json",
    "normalise",
    "quantize",
    "rotated",
    "sample_far",
    "straight_through",
    "to_json",
]

KINDS: dict[str, Any] = {
    "vector": VectorQuantizer,
    "learned": LearnedQuantizer,
    "fsq": FSQ,
    "sign": SignQuantizer,
    "categorical": Categorical,
    "gumbel": GumbelQuantizer,
    "soft": SoftQuantizer,
    "product": Product,
    "residual": Residual,
    "residual_fsq": ResidualFSQ,
}
"""Quantizers by the name that an artefact's config carries."""


def to_json(quantizer: Any) -> dict[str, Any]:
    """Settings as an artefact's config: {"kind": ..., fields ...}; a quantizer among the fields likewise."""
    kind = {cls: name for name, cls in KINDS.items()}[type(quantizer)]
    values = {f.name: getattr(quantizer, f.name) for f in dataclasses.fields(quantizer)}
    return {"kind": kind} | {
        name: to_json(x) if isinstance(x, Quantizer) else x for name, x in values.items()
    }


def from_json(config: dict[str, Any]) -> Any:
    """The inverse of `to_json`, also of what JSON made of it."""
    fields = {
        name: from_json(x) if isinstance(x, dict) else tuple(x) if isinstance(x, list) else x
        for name, x in config.items()
        if name != "kind"
    }
    return KINDS[config["kind"]](**fields)
