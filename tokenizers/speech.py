"""The speech tokenizer of the digits: one second at 8 kHz as 16 codes of one codebook, 62.5 ms each.

    python -m mm.main --config tokenizers/speech.py --workdir runs/tokenizers/speech

Writes runs/tokenizers/speech/artefact/speech.safetensors; copied over tokenizers/speech.safetensors
it is what the configs name (with its fingerprint: change it there too). About 11 minutes on two cores (0.17 s a step).

Expected, on validation recordings (the artefact's card): log spectral distance 4.0 dB, 80% of the codes in use. The
judge of speech recognises 94% of them through the tokenizer (in short trials, ten points fewer without the envelope).
"""

from data_pipelines.digits import Digits
from mm.config import Data, Experiment, Optim
from mm.evals.features import LogSpectrogram
from mm.evals.kinds import Kind
from mm.evals.tokenizers import Tokenizers
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers.audio import AudioAutoencoder
from mm.tokenizers.quantizers import VectorQuantizer

STEPS = 3500
SPEECH = Kind(name="speech", rows="clean", front=LogSpectrogram())


def get_config(arg: str = "") -> Experiment:
    """The recipe of the shipped weights; `smoke` as `arg` takes 20 steps to see that it runs."""
    steps = 20 if arg == "smoke" else STEPS
    card = {
        "data": "FSDD, recordings 10-49 of each speaker and digit (validation: 5-9)",
        "licence": "CC BY-SA 4.0, as the data",
        "steps": steps,
    }
    return Experiment(
        name="speech-tokenizer",
        task=Autoencode(
            column="speech",
            network=AudioAutoencoder(),
            # Two thirds of all places are silence, one code: the others see few examples a step,
            # so they forget fast and are given up only when nearly nothing chooses them.
            quantizer=VectorQuantizer(codes=512, width=16, decay=0.95, dead=0.1),
            weights={"reconstruction": 1.0, "envelope": 10.0, "commitment": 0.25},
            replace=0.05,
            card=card,
        ),
        data=Data(source=Digits(modalities=("speech",), forms=8), batch_size=64),
        optim=Optim(lr=2e-3, warmup=min(100, steps // 2), ema=0.0),
        evals=(Tokenizers(kinds=(SPEECH,), split="validation"),),
        steps=steps,
        log_every=50,
    )
