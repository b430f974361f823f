"""4M's models by their names: the sizes of its registry, and what was released."""

import dataclasses
import re

from mm.errors import UserError, nearest
from mm.models.encoder_decoder import Model

FOUR_M = Model(
    embed_dim=0, token_scale=1.0, token_std=0.02, positions="by_layout", tables="three",
    padding_speaks=True, float32_stream=True,
)  # fmt: skip
"""What all of them share; a model of the hub keeps what is predicted apart from what is told (`tables`)."""
SIZES = {
    "tiny_6e_6d": (384, 6, 6), "small_8e_8d": (512, 8, 8), "base_12e_12d": (768, 12, 12),
    "large_24e_24d": (1024, 24, 16), "xlarge_24e_24d": (2048, 24, 32),
}  # fmt: skip
"""Width, layers on each side, heads."""
KINDS = {
    "gelu": {"mlp": "gelu", "bias": True},
    "swiglu_nobias": {"mlp": "swiglu", "bias": False},
    "swiglu_qknorm_nobias": {"mlp": "swiglu", "bias": False, "qk_norm": True},
}
REGISTRY = tuple(
    f"fm_{size}_{kind}"
    for size in SIZES
    for kind in KINDS
    if "qknorm" not in kind or size.split("_")[0] in ("base", "large", "xlarge")
)
RELEASED = {"b": "base_12e_12d", "l": "large_24e_24d", "xl": "xlarge_24e_24d"}


def model(name: str, registers: int = 0) -> Model:
    """The network called so in the registry ("fm_base_12e_12d_swiglu_nobias"), or as released ("4m-21-b"); for spaces see
    `m4_modalities.preset`.

    Raises:
      UserError: no such name.
    """
    released = re.fullmatch(r"4m-(?:7|21)-(b|l|xl)", name.lower())
    found = f"fm_{RELEASED[released[1]]}_swiglu_nobias" if released else name
    if found not in REGISTRY:
        raise UserError(
            f"{name!r} is no model of 4M{nearest(name, (*REGISTRY, '4m-7-b', '4m-21-b'))}"
        )
    size, kind = next((s, k) for s in SIZES for k in KINDS if found == f"fm_{s}_{k}")
    width, layers, heads = SIZES[size]
    return dataclasses.replace(
        FOUR_M, width=width, heads=heads, encoder_layers=layers, decoder_layers=layers, embed_layers=layers,
        registers=registers, **KINDS[kind],
    )  # fmt: skip
