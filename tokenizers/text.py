"""The text vocabulary of the digits: byte-level BPE in which every word of the training texts is one token.

    python -m mm.main --config tokenizers/text.py --workdir runs/tokenizers/text

Takes no steps; writes runs/tokenizers/text/artefact/text.safetensors; copied over tokenizers/text.safetensors it
is what the configs name. A few seconds.

Expected (the artefact's card): 316 ids (256 bytes, 59 merges, the end), every validation text comes back exactly,
the longest training text takes all 8 places, the mean one 4.2.
"""

from data_pipelines.digits import Digits
from mm.config import Data, Experiment, Optim
from mm.evals.kinds import Kind
from mm.evals.tokenizers import Tokenizers
from mm.tasks.vocabulary import TrainVocabulary


def get_config(arg: str = "") -> Experiment:
    """The recipe of the shipped vocabulary; `arg` is not used."""
    card = {
        "data": "the words and captions of MNIST's first 55,000 training images",
        "licence": "CC BY-SA 3.0, as the data",
    }
    return Experiment(
        name="text-vocabulary",
        task=TrainVocabulary(column="text", max_len=8, card=card),
        data=Data(source=Digits(modalities=("text",))),
        optim=Optim(warmup=0),
        evals=(Tokenizers(kinds=(Kind(name="text"),), split="validation"),),
        steps=0,
    )
