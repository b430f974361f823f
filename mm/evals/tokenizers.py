"""What the tokenizers lose, and how evenly they use their codes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm import artefact, tokenizers, workdir
from mm.evals import kinds as k
from mm.evals.kinds import Kind
from mm.evals.samples import emptied, write_rows
from mm.tasks import Run

OWN_ROWS = 2000


@dataclasses.dataclass(kw_only=True, slots=True)
class Tokenizers:
    """Yields (modality, {fingerprint, tokens, codebook, usage, perplexity, and what reconstruction
    costs}).

    Reconstruction is measured on distinct test items: `mse` and `psnr_db` of the raw values, and
    `unexplained`, the squared error in the kind's front end as a share of the variance there (the
    figure for waveforms, whose samples depend on a phase that nobody hears). Of strings, `exact` is
    the share that comes back as it was. What else there is to say of a kind of data, the settings of its
    autoencoder say: `measures(raw, decoded) -> {name: figure}`, over all rows at once. Usage and perplexity are of the codes of the training rows
    (in the run that trains a tokenizer: of the first 2,000, with the artefact that it has just written).
    A few rows are kept for the report, below evals/<name>.

    Attributes:
      kinds: one per modality; further ones of the same modality are passed over.
      count: test items at most.
      samples: rows that are kept for the report.
    """

    kinds: tuple[Kind, ...]
    count: int = 1000
    samples: int = 10
    split: str = "test"
    name: str = "tokenizer"
    when: str = "end"

    def __length_hint__(self) -> int:
        return len(self.kinds)

    def validate(self) -> None:
        k.check(self.kinds, self.split)

    def run(self, run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
        folder, kept = emptied(run.folder / "evals" / self.name), {}
        for kind in self.kinds:
            if kind.column in kept:
                continue
            tokenizer, own = tokenizer_of(run, kind)
            rows = k.find_rows(run.data, self.split, kind).distinct()
            rows = rows[np.random.default_rng(run.seed).permutation(len(rows))[: self.count]]
            raw = k.read(run.data, self.split, kind, rows)
            tokens = tokenizer.encode(raw) if own else k.tokens(run.data, self.split, kind, rows)
            decoded = tokenizer.decode(*tokens)
            figures = {"fingerprint": tokenizer.fingerprint, "tokens": tokenizer.modality.size}
            used = training_codes(run, kind.column, tokenizer if own else None)
            figures |= code_usage(*used, tokenizer.modality.vocabulary.size)
            first = np.arange(min(self.samples, len(rows)))
            kept[kind.column] = {
                name: write_rows(folder, f"{kind.column}-{name}", tokenizer, k.take(part, first))
                for name, part in (("real", raw), ("tokenized", decoded))
            }
            figures |= reconstruction(kind, raw, decoded) | measured(tokenizer, raw, decoded)
            yield kind.column, figures
        workdir.write_json(folder / "reconstructions.json", kept)


def tokenizer_of(run: Run, kind: Kind) -> tuple[Any, bool]:
    """The kind's tokenizer, and whether this run has made it (its data are not written in its tokens)."""
    made = sorted((run.folder / "artefact").glob("*.safetensors"))
    named = [path for path in made if path.stem == kind.column]
    own = named or [p for p in made if artefact.read(p)[0]["kind"] == "vocabulary"]  # of several
    if kind.column not in run.data.tokenizers and own:
        return tokenizers.load(str(own[0]), kind.column), True
    return k.tokenizer_of(run.data, kind), False


def training_codes(run: Run, column: str, own: Any) -> tuple[np.ndarray, np.ndarray]:
    """ids int32[n, places] and lengths int32[n] of training rows: of all, or of the first by `own` tokenizer."""
    if own is None:
        table = run.data.tokens("train")[column]
        return table.take(np.arange(len(table)))
    rows = run.data.raw("train")[column]
    return own.encode(rows[np.arange(min(len(rows), OWN_ROWS))])


def code_usage(ids: np.ndarray, length: np.ndarray, size: int) -> dict[str, float]:
    """Share of the codes that occur, and perplexity (exp of the entropy) of their frequencies.

    Args:
      ids: int[n, places], valid below length int[n].
      size: of the vocabulary.
    """
    used = np.asarray(ids)[np.arange(np.shape(ids)[1]) < np.asarray(length)[:, None]]
    share = np.bincount(used, minlength=size) / len(used)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    return {
        "codebook": size,
        "usage": float((share > 0).mean()),
        "perplexity": float(np.exp(entropy)),
    }


def reconstruction(kind: Kind, raw: Any, decoded: Any) -> dict[str, float | None]:
    """What decoded rows differ from the raw ones by; see `Tokenizers`."""
    if not isinstance(raw, np.ndarray):
        return {"exact": float(np.mean([a == b for a, b in zip(raw, decoded, strict=True)]))}
    peak = np.iinfo(raw.dtype).max if np.issubdtype(raw.dtype, np.integer) else np.abs(raw).max()
    mse = float(np.square(raw.astype(np.float64) - decoded).mean())
    real, made = kind.front(raw).astype(np.float64), kind.front(decoded)
    spread = np.square(real - real.mean(0)).sum()
    return {
        "mse": mse,
        "psnr_db": float(10 * np.log10(float(peak) ** 2 / mse)) if mse > 0 else None,
        "unexplained": float(np.square(real - made).sum() / spread) if spread > 0 else None,
    }


def measured(tokenizer: Any, raw: Any, decoded: Any) -> dict[str, float | None]:
    """The figures of the tokenizer's own settings, such as mIoU of label maps; none where these measure nothing."""
    measures = getattr(getattr(tokenizer, "settings", None), "measures", None)
    return measures(raw, decoded) if measures else {}
