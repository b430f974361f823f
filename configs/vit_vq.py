"""4M's image tokenizer in small: a ViT before and after a cosine codebook, learned on the colour drawings of the emoji.

    python -m mm.main --config configs/vit_vq.py          (runs/vit-vq)
    python -m mm.main --config configs/vit_vq.py:smoke    20 steps, to see that it runs

32 x 32 pixels become 8 x 8 codes. Expected, on validation drawings (one seed): squared error 0.040 of pixels in [-1, 1],
all 256 codes in use, perplexity 142; 20.2 dB. 4.8 minutes on two x86-64 cores that others used heavily, 2026-11-22.

The size of 4M's own tokenizers: `vit.preset("vit_b")` for encoder and decoder, patch
16, 16,384 codes of 32 features; weights of theirs are read by `mm.weights.m4_tokenizers`.
"""

from data_pipelines.emoji import Emoji
from mm import experiments
from mm.config import Experiment
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers.quantizers import VectorQuantizer
from mm.tokenizers.vit import Transformer, ViTAutoencoder

CARD = {
    "data": "EmojiOne 2.2.7, the emoji that have a line drawing",
    "licence": "CC BY 4.0 (NOTICE)",
}


def get_config(arg: str = "") -> Experiment:
    """The experiment; `smoke` makes it small."""
    side = Transformer(width=64, depth=1 if arg == "smoke" else 2, heads=4)
    network = ViTAutoencoder(
        height=32, width=32, patch=4, image_size=32, encoder=side, decoder=side, code_width=16
    )
    task = Autoencode(
        column="colour",
        network=network,
        quantizer=VectorQuantizer(codes=256, width=16, unit=False, drift=True),
        weights={"reconstruction": 1.0, "commitment": 1.0},
        dtype="float32",
        card=CARD,
    )
    return experiments.tokenizer("vit-vq", task, Emoji(), arg=arg, steps=600)
