"""What many tests share: a small token space and random batches of it."""

import os

import numpy as np
import pytest
from hypothesis import settings

from mm.space import Batch, Grid, Modality, Sequence, TokenSpace, Vocabulary


@pytest.fixture(scope="session")
def space() -> TokenSpace:
    """Three modalities of the three layouts that the masks treat differently."""
    return TokenSpace(
        (
            Modality(
                name="picture",
                vocabulary=Vocabulary(name="picture", size=11),
                layout=Grid(h=2, w=3),
            ),
            Modality(name="sound", vocabulary=Vocabulary(name="sound", size=7), layout=Grid(w=5)),
            Modality(
                name="words",
                vocabulary=Vocabulary(name="words", size=13, eos=0),
                layout=Sequence(max_len=4),
                order="left_to_right",
            ),
        )
    )


def random_batch(space: TokenSpace, rows: int, seed: int, absent: float = 0.0) -> Batch:
    """Random ids; sequences of random length; each modality absent with probability `absent`."""
    rng = np.random.default_rng(seed)
    ids, length, present = {}, {}, {}
    for m in space.modalities:
        ids[m.name] = rng.integers(0, m.vocabulary.size, (rows, m.size)).astype(np.int32)
        length[m.name] = np.full(rows, m.size, np.int32)
        if isinstance(m.layout, Sequence):
            length[m.name] = rng.integers(1, m.size + 1, rows).astype(np.int32)
        present[m.name] = rng.random(rows) >= absent
    return Batch(ids, length, present, rng.integers(0, 4, rows).astype(np.int32))


def pytest_configure(config: pytest.Config) -> None:
    """Default tests compile more than they compute: LLVM's optimisations cost them half of their time.

    The slow ones train, and are as users run them.
    """
    if config.option.markexpr.startswith("not slow and"):  # pyproject.toml's
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()


# Two processes that share two cores with two threads each are three times as slow: each test process gets a core.
if worker := os.environ.get("PYTEST_XDIST_WORKER", ""):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

settings.register_profile("mm", deadline=None)  # machines are noisy; the first call compiles
settings.load_profile("mm")

LONGEST = (
    "test_readme",
    "test_add_a_modality",
    "test_notebook",
    "test_kills",
    "test_your_data",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, so that no process is left with one of them while the others are done."""
    last = len(LONGEST)
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, last))
