"""Everything generated from everything: is it right, and is it as varied and as new as real data?

For each pair of kinds, real test rows of the one are given to the model, which generates rows of
the other; a judge that was trained on real training data says which group it recognises. Accuracy
alone rewards one prototype per class, so beside it stand coverage, Frechet distance, diversity and
the distance to the nearest training row, each beside the same figure of real data, and two
baselines without a model: the training row nearest the class mean, and a random training row, of
the class that a nearest-neighbour classifier reads from the source.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mm.errors import UserError
from mm.evals import kinds as k
from mm.evals.fidelity import ArrayFidelity, TextFidelity, draw_of_class
from mm.evals.kinds import Kind
from mm.evals.samples import Beside, Samples
from mm.evals.statistics import accuracy, mean_interval
from mm.tasks import Run

POOL = 2000  # training rows that the random baseline draws from: each is judged once for all cells


@dataclasses.dataclass(kw_only=True, slots=True)
class AnyToAny:
    """Generation from each kind to each other.

    Yields ("source->target", {accuracy, interval, inputs, ..., baselines}). Intervals are clustered
    by distinct input: `inputs` of them gave `samples` generations.

    Attributes:
      kinds: all ordered pairs of them that are of different modalities are evaluated.
      extra: further (source, target) pairs.
      count: generations per pair; inputs that are fewer are given equally often.
      train_rows: training rows at most, for features, nearest neighbours and baselines.
      samples: unselected examples per pair, kept for the report.
    """

    kinds: tuple[Kind, ...]
    extra: tuple[tuple[Kind, Kind], ...] = ()
    count: int = 1000
    train_rows: int = 10_000
    samples: int = 10
    split: str = "test"
    name: str = "any_to_any"
    when: str = "end"

    def pairs(self) -> list[tuple[Kind, Kind]]:
        """The (source, target) pairs in order."""
        square = [(a, b) for a in self.kinds for b in self.kinds if a.column != b.column]
        return square + list(self.extra)

    def __length_hint__(self) -> int:
        return len(self.pairs())

    def validate(self) -> None:
        kinds = tuple(kind for pair in self.pairs() for kind in pair)
        k.check(kinds, self.split)
        unjudged = [kind.name for kind in kinds if not k.readers(kind)]
        if unjudged:
            raise UserError(f"config.evals: kind {unjudged[0]!r} has no judge; set Kind.judge")
        if self.count < 2:
            raise UserError(f"config.evals: any_to_any.count={self.count}: must be at least 2")

    def run(self, run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
        self.validate()
        sides: dict[str, Side] = {}
        samples = Samples(run.folder / "samples")
        for pair in self.pairs():
            for kind in pair:
                if kind.name not in sides:
                    sides[kind.name] = Side(run, kind, self)
            source, target = (sides[kind.name] for kind in pair)
            made = generate(run, source, target)
            recognised = k.strictest(target.judge(made), source.chosen.group)
            yield (
                f"{source.kind.name}->{target.kind.name}",
                assess(source, target, made, recognised),
            )
            shown = np.random.default_rng(run.seed).permutation(len(source.chosen))[: self.samples]
            given = (source.kind, source.tokenizer, source.raw)
            group = source.chosen.group
            beside = target.beside(run, self.split, source.chosen.example[shown])
            made_of = (target.kind, target.tokenizer, made)
            samples.add(given, made_of, shown, group, recognised, beside)
        samples.close()


class Side:
    """What the cells of one kind share: its inputs, its judge, the real rows to compare with."""

    def __init__(self, run: Run, kind: Kind, settings: AnyToAny):
        self.kind, self.seed = kind, run.seed
        self.tokenizer = k.tokenizer_of(run.data, kind)
        split = settings.split
        test = k.find_rows(run.data, split, kind)
        self.test, self.chosen = test, k.choose(test, settings.count, run.seed)
        self.raw = k.read(run.data, split, kind, self.chosen)
        self.tokens = k.tokens(run.data, split, kind, self.chosen)
        self.cluster = k.contents(self.raw, self.chosen)
        self.judge = k.open_judge(kind)
        self._open_real(run, test, settings)

    def _open_real(self, run: Run, test: k.Rows, settings: AnyToAny) -> None:
        kind, rng = self.kind, np.random.default_rng(run.seed)
        train = k.find_rows(run.data, "train", kind).distinct()
        train = train[rng.permutation(len(train))[: settings.train_rows]]
        real = test.distinct()
        real = real[rng.permutation(len(real))[: settings.count]]
        self.train_raw, self.train_group = k.read(run.data, "train", kind, train), train.group
        rows = (
            self.train_raw,
            train.group,
            k.read(run.data, settings.split, kind, real),
            real.group,
        )
        if isinstance(self.train_raw, np.ndarray):
            self.fidelity = ArrayFidelity(kind.front, *rows)
        else:
            self.fidelity = TextFidelity(*rows, reader=lambda texts: self.judge(texts)[0])
        self.predicted = self.fidelity.classify(self.raw)
        self.prototypes = self.fidelity.prototypes()
        self.pool_read = self.judge(self.train_raw[:POOL])
        prototypes = np.array(list(self.prototypes.values()))
        self.prototypes_read = self.judge(k.take(self.train_raw, prototypes))

    def beside(self, run: Run, split: str, examples: np.ndarray) -> Beside | None:
        """This kind's rows in given examples, real and through the tokenizer; None of texts, which come back exact."""
        if not isinstance(self.raw, np.ndarray):
            return None
        at = np.minimum(np.searchsorted(self.test.example, examples), len(self.test) - 1)
        places = np.flatnonzero(self.test.example[at] == examples)
        rows = self.test[at[places]]
        tokenized = self.tokenizer.decode(*k.tokens(run.data, split, self.kind, rows))
        return places, k.read(run.data, split, self.kind, rows), tokenized

    def class_mean(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The prototype of each class (a training row; -1 = none), read as int64[readers, n]."""
        place = {g: i for i, g in enumerate(self.prototypes)}
        at = np.array([place.get(int(p), -1) for p in predicted])
        index = np.array([*self.prototypes.values(), -1])[at]
        return index, np.where(at >= 0, self.prototypes_read[:, at], -1)

    def random_of_class(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Random training rows of each class (-1 = none), read as int64[readers, n]."""
        index = draw_of_class(self.train_group[:POOL], predicted, self.seed)
        return index, np.where(index >= 0, self.pool_read[:, index], -1)


def generate(run: Run, source: Side, target: Side) -> Any:
    """Raw rows of the target kind, one per input; the key follows from the kinds' names."""
    name = f"{source.kind.name}->{target.kind.name}"
    key = jax.random.fold_in(jax.random.key(run.seed), zlib.crc32(name.encode()))
    template = target.kind.prompt
    prompt = None if template is None else target.tokenizer.encode_prompt(template)
    ids, length = run.task.generate(
        run.params,
        {source.kind.column: source.tokens},
        target.kind.column,
        key=key,
        sampler=target.kind.sampler,
        prompt=prompt,
        grammar=getattr(target.tokenizer, "grammar", None),
    )
    return target.tokenizer.decode(ids, length)


def assess(source: Side, target: Side, made: Any, recognised: np.ndarray) -> dict[str, Any]:
    """All figures of one cell."""
    group, cluster = source.chosen.group, source.cluster
    result: dict[str, Any] = accuracy(recognised == group, cluster)
    result |= {"samples": len(group), "inputs": len(np.unique(cluster))}
    sorts = {"source_rows": source.kind.rows, "target_rows": target.kind.rows}
    result |= {key: rows for key, rows in sorts.items() if rows}
    result |= target.fidelity.compare(made, group)
    answers = {
        "class_mean_item": target.class_mean(source.predicted),
        "random_item_of_predicted_class": target.random_of_class(source.predicted),
    }
    result["baselines"] = {
        name: accuracy(k.strictest(read, group) == group, cluster)
        | {"coverage": target.fidelity.coverage_of_train(index)}
        for name, (index, read) in answers.items()
    }
    if source.kind.facts and target.kind.facts:
        result["facts"] = compare_facts(source, target, made)
    return result


def compare_facts(source: Side, target: Side, made: Any) -> dict[str, Any]:
    """How often the generated row has the values that the source has, fact by fact.

    `most_frequent` is what always answering with the fact's commonest value would reach.

    Returns:
      {mean, interval, mean_most_frequent, all, each: {fact: {accuracy, interval, most_frequent}}};
      `all` is the share of rows in which every fact is right.
    """
    assert source.kind.facts and target.kind.facts
    given = [source.kind.facts(row) for row in source.raw]
    found = [target.kind.facts(row) for row in made]
    names = sorted({name for facts in given for name in facts})
    each: dict[str, Any] = {}
    right = np.zeros((len(names), len(given)), bool)
    for i, name in enumerate(names):
        values = [facts.get(name) for facts in given]
        right[i] = [v == facts.get(name) for v, facts in zip(values, found, strict=True)]
        commonest = max(values.count(v) for v in set(values)) / len(values)
        each[name] = accuracy(right[i], source.cluster) | {"most_frequent": commonest}
    low, high = mean_interval(right.mean(0), source.cluster)
    return {
        "mean": float(right.mean()),
        "interval": [max(low, 0.0), min(high, 1.0)],
        "mean_most_frequent": float(np.mean([f["most_frequent"] for f in each.values()])),
        "all": float(right.all(0).mean()),
        "each": each,
    }
