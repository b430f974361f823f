"""Joint models of 4M's sizes on random tokens: to be compiled for slices of a TPU, and to be timed.

    python -m mm.main --mode=compile --config configs/scale.py:xl --topology=v5e-256
    python -m mm.main --mode=compile --config configs/scale.py:xl --topology=v5p-128
    python -m mm.perf step --config configs/scale.py:tiny
    python -m mm.main --config configs/scale.py:smoke               trained for ten steps

xl: 2.8 billion parameters in the trunk (24 + 24 layers of 2,048), the 21 modalities of the 4M-21 release as tokens, 256
tokens in, 256 out, batch 4,096; base and tiny: the widths and layers of these names there, with 4M-7's modalities. The
tables for the first are in docs/scale.md.
"""

from mm.config import Data, Experiment, Mesh, Optim
from mm.data.random_tokens import RandomTokens, Tokens
from mm.errors import UserError, nearest
from mm.models.encoder_decoder import Model
from mm.objectives.masking import Masking
from mm.tasks.joint import Contrast, Joint

GRIDS = {
    "rgb": (16384, 14), "depth": (8192, 14), "normal": (8192, 14), "semseg": (4096, 14), "clip": (8192, 14),
    "canny_edge": (8192, 14), "sam_edge": (8192, 14), "dinov2": (8192, 16), "imagebind": (8192, 16),
    "rgb@448": (16384, 28), "depth@448": (8192, 28), "normal@448": (8192, 28), "semseg@448": (4096, 28),
}  # fmt: skip
VECTORS = {"dinov2_global": (8192, 16), "imagebind_global": (8192, 16)}
SEQUENCES = {
    "caption": 256, "det": 256, "metadata": 40, "human_poses": 263, "color_palette": 23, "sam_instance": 290,
}  # fmt: skip
SEVEN = ("rgb", "depth", "normal", "semseg", "clip", "caption", "det")

# width, heads, layers of encoder and of decoder, batch
SIZES = {
    "smoke": (64, 2, 2, 4),
    "tiny": (384, 6, 6, 8),
    "base": (768, 12, 12, 256),
    "xl": (2048, 32, 24, 4096),
}


def kinds() -> dict[str, Tokens]:
    """The 21 modalities."""
    found = {n: Tokens(vocabulary=v, height=side, width=side) for n, (v, side) in GRIDS.items()}
    found |= {n: Tokens(vocabulary=v, length=length) for n, (v, length) in VECTORS.items()}
    texts = {n: Tokens(vocabulary=30_000, length=k, sequence=True) for n, k in SEQUENCES.items()}
    return found | texts


def get_config(arg: str = "xl") -> Experiment:
    """The experiment of the size `arg`."""
    if arg not in SIZES:
        raise UserError(f"configs/scale.py:{arg}: no such size{nearest(arg, SIZES)}")
    width, heads, layers, batch = SIZES[arg]
    model = Model(
        width=width, heads=heads, encoder_layers=layers, decoder_layers=layers, embed_layers=2,
        embed_dim=width // 4, mlp="swiglu", bias=False, remat="full" if arg == "xl" else "none",
    )  # fmt: skip
    wanted = kinds() if arg in ("xl", "smoke") else {n: kinds()[n] for n in SEVEN}
    long = arg == "xl"
    return Experiment(
        name=f"scale-{arg}",
        task=Joint(
            model=model,
            masking=Masking(visible=256, targets=256),
            contrast=Contrast(weight=0.1, modalities=3, share=0.25),
        ),
        data=Data(source=RandomTokens(kinds=wanted, rows=64), batch_size=batch),
        optim=Optim(lr=3e-4, warmup=10_000 if long else 5),
        mesh=Mesh(fsdp=-1),
        steps=500_000 if long else 10,
        log_every=100 if long else 5,
        save_every=1000 if long else 0,
    )
