"""A joint model of 4M-21 XL's shape, to be compiled for slices of a TPU; its data are random tokens.

    python -m mm.main --mode=compile --config configs/scale_xl.py --topology=v5e:16x16
    python -m mm.main --mode=compile --config configs/scale_xl.py --topology=v5p:4x4x8
    python -m mm.main --config configs/scale_xl.py:smoke             the same in small, trained for ten steps

2.8 billion parameters in the trunk (24 + 24 layers of 2,048), 21 modalities, 256 tokens in, 256 out, 4M's batch of
4,096. Widths, layers, vocabularies and lengths are those of the 4M-21 release; docs/scale.md has the tables.
"""

from mm.config import Data, Experiment, Mesh, Optim
from mm.data.random_tokens import RandomTokens, Tokens
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


def kinds() -> dict[str, Tokens]:
    """The 21 modalities."""
    found = {n: Tokens(vocabulary=v, height=side, width=side) for n, (v, side) in GRIDS.items()}
    found |= {n: Tokens(vocabulary=v, length=length) for n, (v, length) in VECTORS.items()}
    texts = {n: Tokens(vocabulary=30_000, length=k, sequence=True) for n, k in SEQUENCES.items()}
    return found | texts


def get_config(arg: str = "") -> Experiment:
    """The experiment; `smoke` as `arg` makes it small."""
    smoke = arg == "smoke"
    model = Model(
        width=2048, heads=32, encoder_layers=24, decoder_layers=24, embed_layers=2, embed_dim=512,
        mlp="swiglu", bias=False, remat="full",
    )  # fmt: skip
    if smoke:
        model.width, model.heads, model.embed_dim = 64, 2, 16
        model.encoder_layers, model.decoder_layers = 2, 2
    return Experiment(
        name="scale_xl-smoke" if smoke else "scale_xl",
        task=Joint(
            model=model,
            masking=Masking(visible=256, targets=256),
            contrast=Contrast(weight=0.1, modalities=3, share=0.25),
        ),
        data=Data(source=RandomTokens(kinds=kinds(), rows=64), batch_size=4 if smoke else 4096),
        optim=Optim(lr=3e-4, warmup=5 if smoke else 10_000),
        mesh=Mesh(fsdp=-1),
        steps=10 if smoke else 500_000,
        log_every=5 if smoke else 100,
        save_every=0 if smoke else 1000,
    )
