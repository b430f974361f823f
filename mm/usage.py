"""What --help says: how things are done, and, of a config file, every field that can be overridden."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

HELP = """mm: train, use and judge any-to-any multimodal models.

TRAIN       python -m mm.main --config configs/quickstart.py
            A tokenizer (tokenizers/image.py) or judge (configs/judges/speech.py) is trained the same way.
            FILE:smoke is the same in small; FILE:arg calls get_config(arg).
SETTINGS    python -m mm.main --config FILE --help            every field: type, value, meaning
            --config.optim.lr=3e-4 --config.steps=500         overrides any of them
            --config.init=RUN                                 starts from the weights of another run
SWEEP       A FILE whose get_config yields (name, Experiment) pairs: each runs in DIR/NAME; one table at the end.
DATA        python -m mm.main --mode=check-data --config FILE [--out DIR]     what the data is like; nothing is trained
            Of your own: configs/my_data.py, docs/your_data.md
TOKENIZE    python -m mm.main --mode=tokenize --config FILE --out FOLDER     tokens on disk: docs/tokenize.md
STOP        Ctrl-C (or SIGTERM) saves after the current step; a second one stops at once.
CONTINUE    The same command again: from the last checkpoint, to the same bits on the same machine.
WHERE       --workdir DIR (runs/NAME unless given) holds everything: config.json, checkpoints/, metrics.jsonl,
            tensorboard/, results.json, report/index.html; cache/ in it may be deleted. Another experiment needs
            another folder. --wandb=PROJECT sends the figures to Weights & Biases as well.
REPORT      python -m mm.report RUN        its page anew; RUN RUN2 compares two; --against reference looks for a drift
EVALUATE    python -m mm.main --mode=evaluate --workdir RUN
COMPILE     python -m mm.main --mode=compile --config FILE --topology=v5e:2x4 [--slices N] [--json FILE]
            for a TPU that is not there (extra tpu): memory a chip, FLOPs, collectives, whether it fits
GENERATE    python -m mm.main --mode=generate --input text="a thin seven" --output image,speech
            by the model that ships with mm; --workdir RUN uses a run's, --workdir FILE.safetensors an exported one;
            --input MODALITY=FILE may be given several times; --output text="a ..." or text="[MASK]" asks for a form;
            --out DIR (generated unless given), --seed N
EMBED       python -m mm.main --mode=embed --input image=seven.png [--workdir RUN] [--out DIR]
IN PYTHON   model = mm.load(); model.generate("image", text=["seven"])          mm.load("RUN") for a run's
EXPORT      python -m mm.weights export RUN --out FILE.safetensors [--card CARD.md]
LARGER      Several hosts, Cloud TPU: docs/tpu.md   More modalities for a trained model: --config.init=RUN --config.grow
DEVICES     GPU: uv run --extra cuda python -m mm.main ...   TPU: --extra tpu   JAX then finds them by itself.
            CPU all the same: JAX_PLATFORMS=cpu   Several devices: --config.mesh.fsdp, --config.mesh.tensor
            Fewer CPU threads: taskset -c 0,1 python -m mm.main ...   Reading: --config.data.threads
MEMORY      A smaller --config.data.batch_size
MORE        README.md, docs/your_data.md, docs/add_a_modality.md, docs/architecture.md, CONTRIBUTING.md
"""


def fields(exp: Any) -> str:
    """Every field of an experiment as its override, with its type and what its docstring says of it."""
    return "\n".join(_described(exp, "config", {}))


def _described(part: Any, path: str, seen: dict[int, str]) -> Iterator[str]:
    kind = type(part)
    yield f"\n{path}: {kind.__qualname__}: {(inspect.getdoc(kind) or '').partition(chr(10))[0]}"
    if id(part) in seen:
        yield f"  (the same as {seen[id(part)]})"
        return
    seen[id(part)] = path
    documented, deeper = _documented(kind), []
    for field in dataclasses.fields(part):
        value, here = getattr(part, field.name), f"{path}.{field.name}"
        parts = _parts(value, here)
        deeper += parts
        if not parts:
            sort = field.type.__name__ if isinstance(field.type, type) else str(field.type)
            said = f"{sort.replace('typing.', '')}  {documented.get(field.name, '')}".strip()
            override = f"--{here}={_shown(value)}"
            yield f"  {override:<36}  {textwrap.shorten(said, 110, placeholder=' ...')}"
    for inner, where in deeper:
        yield from _described(inner, where, seen)


def _parts(value: Any, path: str) -> list[tuple[Any, str]]:
    """The dataclasses in a field, with their paths."""
    if isinstance(value, tuple):
        return [p for i, v in enumerate(value) for p in _parts(v, f"{path}[{i}]")]
    is_part = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return [(value, path)] if is_part else []


def _shown(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value) if not isinstance(value, str) else f'"{value}"'


def _documented(kind: type) -> dict[str, str]:
    """Field -> what the `Attributes:` of a docstring say of it; "a, b: text" is said of both."""
    listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if head := re.match(r"  (\w+(?:, \w+)*): (.*)", line):
            names = head[1].split(", ")
            found |= dict.fromkeys(names, head[2])
        elif line.startswith("    "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
