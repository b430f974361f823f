"""The image tokenizer of the digits: 28 x 28 pixels as 4 x 4 codes of one codebook.

    python -m mm.main --config tokenizers/image.py --workdir runs/tokenizers/image

Writes runs/tokenizers/image/artefact/image.safetensors; copied over tokenizers/image.safetensors it is what the
configs name (with its fingerprint: change it there too). About 400 s of processor time (0.08 s a step).

Expected, on validation images (the artefact's card): cross-entropy 0.086 nats a pixel, squared error 0.0079 of
pixels in [0, 1], all 256 codes in use, perplexity 227.
"""

from data_pipelines.digits import Digits
from mm.config import Data, Experiment, Optim
from mm.evals.kinds import Kind
from mm.evals.tokenizers import Tokenizers
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers.image import ImageAutoencoder
from mm.tokenizers.quantizers import VectorQuantizer

STEPS = 5000


def get_config(arg: str = "") -> Experiment:
    """The recipe of the shipped weights; `smoke` as `arg` takes 20 steps to see that it runs."""
    steps = 20 if arg == "smoke" else STEPS
    card = {
        "data": "MNIST, its first 55,000 training images (validation: the other 5,000)",
        "licence": "CC BY-SA 3.0, as the data",
        "steps": steps,
    }
    return Experiment(
        name="image-tokenizer",
        task=Autoencode(
            column="image",
            network=ImageAutoencoder(),
            quantizer=VectorQuantizer(codes=256, width=16),
            replace=0.05,
            card=card,
        ),
        data=Data(source=Digits(modalities=("image",)), batch_size=256),
        optim=Optim(lr=2e-3, warmup=min(100, steps // 2), weight_decay=0.01),
        evals=(Tokenizers(kinds=(Kind(name="image"),), split="validation"),),
        steps=steps,
        log_every=50,
    )
