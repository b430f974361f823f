"""One model that reads, writes, draws, speaks and retrieves digits.

    python -m mm.main --config configs/quickstart.py            (runs/quickstart; stop and start it as you like)
    python -m mm.main --config configs/quickstart.py:smoke      the same in small, to see that everything runs

Handwritten images, spoken audio and text (words and captions) in one token space; masked generation and contrast
in one step. Expected figures and run time: README.md.
"""

from data_pipelines.digit_captions import measure_facts, read_digit, read_facts
from data_pipelines.digits import Digits
from mm.config import Data, Experiment, Optim
from mm.evals.any_to_any import AnyToAny
from mm.evals.features import LogSpectrogram
from mm.evals.judges import Judges
from mm.evals.kinds import Kind
from mm.evals.retrieval import Retrieval
from mm.evals.tokenizers import Tokenizers
from mm.evals.validation import ValidationLoss
from mm.generate.sampling import Sampler
from mm.models.encoder_decoder import Model
from mm.objectives.masking import Masking
from mm.tasks.joint import Contrast, Joint

TOKENIZERS = {
    "image": "tokenizers/image.safetensors#19398e4d",
    "speech": "tokenizers/speech.safetensors#b11b4c77",
    "text": "tokenizers/text.safetensors#ce4a48d1",
}

# What evaluation compares. A text is a word, or a caption whose facts are checked against the picture.
IMAGE = Kind(
    name="image",
    rows="clean",
    judge="configs/judges/image.safetensors#b9535f2f",
    facts=measure_facts,
)
SPEECH = Kind(
    name="speech",
    rows="clean",
    judge="configs/judges/speech.safetensors#d2641759",
    front=LogSpectrogram(),
)
WORD = Kind(name="text", rows="word", prompt="[MASK]", judge=read_digit)
CAPTION = Kind(
    name="caption",
    modality="text",
    rows="caption",
    prompt="a ...",
    judge=read_digit,
    facts=read_facts,
)


def get_config(arg: str = "") -> Experiment:
    """The experiment; `smoke` as `arg` makes it small."""
    smoke = arg == "smoke"
    count, rows = (60, 400) if smoke else (1000, 10_000)
    kinds = (IMAGE, SPEECH, WORD)
    captions = ((IMAGE, CAPTION), (CAPTION, IMAGE), (SPEECH, CAPTION), (CAPTION, SPEECH))
    return Experiment(
        name="quickstart-smoke" if smoke else "quickstart",
        task=Joint(
            model=Model(
                width=64 if smoke else 128,
                heads=2 if smoke else 4,
                encoder_layers=1 if smoke else 3,
                decoder_layers=1 if smoke else 3,
                positions="learned",
                codebook_init=0.8,
                mlp="gelu_tanh",
                scan=False,
            ),
            masking=Masking(visible=24, targets=24, whole=0.9, dirichlet=0.1, nothing=0.5),
            contrast=Contrast(weight=0.3, share=0.75),
            shares={"text": 3.0},
            samplers={
                "image": Sampler(steps=8, temperature=0.5, guidance=1.0 if smoke else 1.5),
                "speech": Sampler(steps=12, temperature=0.6, guidance=1.0 if smoke else 2.0),
                "text": Sampler(temperature=0.0),
            },
        ),
        data=Data(
            source=Digits(forms=2 if smoke else 8),
            tokenizers=TOKENIZERS,
            batch_size=32 if smoke else 64,
        ),
        optim=Optim(kind="muon", lr=3e-3, warmup=10 if smoke else 100),
        evals=(
            ValidationLoss(batches=1 if smoke else 8),
            AnyToAny(
                kinds=kinds,
                extra=captions[:2] if smoke else captions,
                count=count,
                train_rows=rows,
            ),
            Retrieval(
                kinds=kinds if smoke else (*kinds, CAPTION), queries=count, gallery=2 * count
            ),
            Judges(kinds=(IMAGE, SPEECH), count=10 * count),
            Tokenizers(kinds=kinds, count=count),
        ),
        steps=40 if smoke else 2500,
        log_every=10 if smoke else 50,
        eval_every=20 if smoke else 500,
        save_every=20 if smoke else 500,
    )
