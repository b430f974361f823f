"""The quickstart, trained on tokens that were written before: what a data set that is too large to tokenize at a start needs.

    python -m mm.main --mode=tokenize --config configs/quickstart.py --passes 4 --out tokens/digits
    python -m mm.main --config configs/tokens.py

Its pairs of an image, a recording and a text are those of four epochs; the quickstart draws new ones in each. The
tokenizers are named too, so that the model begins with their codebooks and can be used; tokens of others are refused.
Evaluators of raw rows are left out: the folder has none. docs/tokenize.md
"""

from configs import quickstart
from mm.config import Experiment
from mm.data.tokenized import Tokenized
from mm.evals.validation import ValidationLoss


def get_config(arg: str = "") -> Experiment:
    """The experiment; `smoke` as `arg` makes it small."""
    exp = quickstart.get_config(arg)
    exp.name = exp.name.replace("quickstart", "tokens")
    exp.data.source = Tokenized(path="tokens/digits")
    exp.evals = tuple(e for e in exp.evals if isinstance(e, ValidationLoss))
    return exp
