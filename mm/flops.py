"""Floating-point operations of a joint step, by closed form: XLA's own count takes the body of a scan once.

Multiply-adds of matrix products count 2; everything else is left out (below 2% from a width of 512 on).
"""

from mm.models.encoder_decoder import Model
from mm.models.layers import hidden_size
from mm.objectives.masking import Masking
from mm.space import TokenSpace


def forward(
    model: Model, masking: Masking, space: TokenSpace, rows: int, contrast: tuple[int, int] | None
) -> dict[str, float]:
    """Of the forward pass over `rows` examples, by part of the step.

    Args:
      contrast: (modalities, tokens of each) of the contrast's view; None without contrast.
    """
    d, n, q = model.width, masking.visible, masking.targets
    found = {
        "encoder": n * model.encoder_layers * block(model, n),
        "decoder": model.decoder_layers
        * (q * (block(model, q) + 2 * d * d + 2 * n * d) + n * 2 * d * d)
        + n * d * d,
        "logits": sum(
            min(m.size, q) * d * m.vocabulary.size for m in space.modalities if m.vocabulary
        ),
    }
    if contrast:
        count, tokens = contrast
        e, pairs = model.embed_dim, count * (count - 1) // 2 + count  # of modalities, and the fused
        one = tokens * model.embed_layers * block(model, tokens) + d * e
        found["contrast"] = count * one + d * e + pairs * rows * e
    return {name: 2.0 * rows * products for name, products in found.items()}


def block(model: Model, tokens: int) -> int:
    """Products per token of an encoder block that attends to `tokens`: four projections, the MLP, attention."""
    d = model.width
    mlp = (3 if model.mlp == "swiglu" else 2) * d * hidden_size(model.mlp, d)
    return 4 * d * d + mlp + 2 * tokens * d
