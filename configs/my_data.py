"""A model of one's own data, from a folder to retrieval: see docs/your_data.md.

python -m mm.main --config configs/my_data.py:image       likewise :audio and :text, the tokenizers
python -m mm.main --config configs/my_data.py             the joint model
"""

from mm.config import Data, Experiment, Optim
from mm.data.folder import Folder
from mm.evals.kinds import Kind
from mm.evals.retrieval import Retrieval
from mm.evals.validation import ValidationLoss
from mm.objectives.masking import Masking
from mm.tasks.joint import Contrast, Joint
from mm.tasks.tokenizer import Autoencode
from mm.tasks.vocabulary import TrainVocabulary
from mm.tokenizers.audio import AudioAutoencoder
from mm.tokenizers.files import Framing
from mm.tokenizers.image import ImageAutoencoder

PICTURES = ImageAutoencoder(height=32, width=32, channels=3, patch=8, framing=Framing(box=0))
TOKENIZERS = {
    "image": Autoencode(column="image", network=PICTURES),
    "audio": Autoencode(column="audio", network=AudioAutoencoder(rate=8000, length=8000)),
    "text": TrainVocabulary(size=4000, max_len=16, cut=True),
}


def get_config(arg: str = "") -> Experiment:
    """The joint model, or the tokenizer of modality `arg`."""
    data = Data(source=Folder(path="my_data"), batch_size=64, threads=2)
    steps, task, evals = 3000, TOKENIZERS[arg] if arg else None, ()
    if task:
        data.source.modalities, steps = (arg,), 0 if arg == "text" else steps
    else:
        data.tokenizers = {m: f"runs/my-{m}/artefact/{m}.safetensors" for m in TOKENIZERS}
        task = Joint(masking=Masking(visible=32, targets=24), contrast=Contrast(weight=0.3))
        evals = (ValidationLoss(), Retrieval(kinds=tuple(Kind(name=m) for m in TOKENIZERS)))
    optim = Optim(warmup=steps // 30)
    name = f"my-{arg or 'data'}"
    return Experiment(name=name, task=task, data=data, optim=optim, evals=evals, steps=steps)
