"""Using a trained model: `model = mm.load(workdir)`, then embed, generate, score, features.

Values are raw rows as the tokenizers take them (arrays, strings), or paths of a user's own files.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils.epath import Path

from mm import checkpoint, progress, tokenizers
from mm.errors import UserError, nearest
from mm.flags import Command
from mm.generate.sampling import Sampler
from mm.tasks.joint import Joint, JointTask
from mm.tasks.token_calls import Tokens
from mm.weights import exported


class Model:
    """A joint model with its tokenizers.

    Attributes:
      tokenizers: by modality. task: its token-level calls. params: plain dict of arrays.
      card: facts for people (seed, figures, licence) of a model in a file.
    """

    def __init__(
        self,
        task: JointTask,
        params: Any,
        toks: Mapping[str, tokenizers.Tokenizer],
        card: Mapping[str, Any] | None = None,
    ):
        self.task, self.params, self.tokenizers = task, params, dict(toks)
        self.card = dict(card or {})

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Model":
        """A trained model: the one that ships with mm (None), one in a file, or a run's newest checkpoint.

        Raises:
          UserError: no run, no checkpoint, or a run that trained no joint model; or see `exported.read`.
        """
        path = exported.SHIPPED if path is None else Path(path)
        with progress.work(f"reading {path.name}"):
            if path.suffix == ".safetensors":
                return cls(*exported.read(path))
            return cls._of_run(path)

    @classmethod
    def _of_run(cls, folder: Path) -> "Model":
        exp, checkpoints, latest = checkpoint.of_run(folder)
        if not isinstance(exp.task, Joint):
            raise UserError(
                f"{folder}: the run of {exp.name!r} trained no joint model; name the --workdir of one that did"
            )
        toks = tokenizers.load_all(exp.data.tokenizers)
        space = tokenizers.space_in(toks, exp.data.source)
        if space is None:
            raise UserError(f"{folder}: its data source is not here; run from where its config is")
        task = exp.task.build_for(space)
        checkpoints.check_tokenizers(latest, tokenizers.fingerprints_in(toks, exp.data.source))
        source: Any = exp.data.source
        toks = toks or source.tokenizers()
        part = exp.optim.evaluated
        params, _ = jax.eval_shape(task.init, jax.random.key(0))
        return cls(task, checkpoints.restore_part(latest, {part: params})[part], toks)

    def tokens(self, inputs: Mapping[str, Any]) -> dict[str, Tokens]:
        """Raw values, or paths, per modality -> ids. A single value (or path) counts as one row.

        Raises:
          UserError: an unknown modality, or a file that cannot be read.
        """
        out = {}
        for name, value in inputs.items():
            if name not in self.tokenizers:
                raise UserError(
                    f"modality {name!r}: the model has {', '.join(self.tokenizers)}{nearest(name, self.tokenizers)}"
                )
            out[name] = self.tokenizers[name].encode(self._rows(name, value))
        counts = {name: len(ids) for name, (ids, _) in out.items()}
        if len(set(counts.values())) > 1:
            raise UserError(
                f"inputs of different length {counts}: give as many rows of each modality"
            )
        return out

    def _rows(self, name: str, value: Any) -> Any:
        tokenizer = self.tokenizers[name]
        if isinstance(value, (str, os.PathLike)):
            return _stacked([tokenizer.read_file(os.fspath(value))])
        if isinstance(value, Sequence) and value and isinstance(value[0], (str, os.PathLike)):
            return _stacked([tokenizer.read_file(os.fspath(v)) for v in value])
        return value

    def embed(self, **inputs: Any) -> np.ndarray:
        """float32[n, E], unit rows; of one modality its unimodal embedding, of several the fused one."""
        with progress.work(f"embedding {' + '.join(inputs)}"):
            return self.task.embed(self.params, self.tokens(inputs))

    def features(self, layer: int, **inputs: Any) -> np.ndarray:
        """Mean encoder state after `layer` layers, float32[n, width]."""
        return self.task.features(self.params, self.tokens(inputs), layer)

    def generate(
        self,
        output: str,
        *,
        prompt: str | None = None,
        seed: int = 0,
        rows: int | None = None,
        sampler: Sampler | None = None,
        **inputs: Any,
    ) -> Any:
        """Raw rows of modality `output`, sampled given all inputs (or none of them: then `rows`).

        Args:
          prompt: a template for a text: "[MASK]" is one token to be filled in, " ..." at the end leaves it open.
        """
        if output not in self.tokenizers:
            raise UserError(
                f"output {output!r}: the model has {', '.join(self.tokenizers)}{nearest(output, self.tokenizers)}"
            )
        tokenizer = self.tokenizers[output]
        given = None
        if prompt is not None:
            encode_prompt = getattr(tokenizer, "encode_prompt", None)
            if encode_prompt is None:
                raise UserError(
                    f"output {output}={prompt!r}: only texts take a template; write {output} alone"
                )
            given = encode_prompt(prompt)[:2]
        with progress.work(f"generating {output}"):
            ids, length = self.task.generate(
                self.params, self.tokens(inputs), output, key=jax.random.key(seed),
                sampler=sampler, prompt=given, rows=rows, grammar=getattr(tokenizer, "grammar", None),
            )  # fmt: skip
            return tokenizer.decode(ids, length)

    def score(self, output: str, value: Any, *, seed: int = 0, **inputs: Any) -> np.ndarray:
        """log p(value | inputs) in nats, float32[n]; see `JointTask.score`."""
        target = self.tokens({output: value})[output]
        with progress.work(f"scoring {output}"):
            return self.task.score(
                self.params, self.tokens(inputs), output, target, key=jax.random.key(seed)
            )


def _stacked(rows: list[Any]) -> Any:
    return rows if isinstance(rows[0], str) else np.stack(rows)


def generate_files(model: Model, command: Command) -> Iterator[str]:
    """--mode=generate: one file per output modality below `command.out`; yields what to print.

    Raises:
      UserError: before anything is written, for bad inputs or outputs.
    """
    if not command.outputs:
        raise UserError(
            f"--mode=generate: needs --output with some of {', '.join(model.tokenizers)}"
        )
    inputs: dict[str, Any] = dict(command.inputs)
    made = {
        name: model.generate(name, prompt=template, seed=command.seed, **inputs)
        for name, template in command.outputs.items()
    }
    _folder(command.out)
    for name, rows in made.items():
        path = model.tokenizers[name].write_file(rows[0], command.out / name)
        yield f"{name}: {path}" + (f": {rows[0]}" if isinstance(rows[0], str) else "")


def embed_files(model: Model, command: Command) -> Iterator[str]:
    """--mode=embed: the embedding of all inputs together, as `embedding.npy` below `command.out`."""
    if not command.inputs:
        raise UserError(
            f"--mode=embed: needs --input MODALITY=VALUE with some of {', '.join(model.tokenizers)}"
        )
    z = model.embed(**command.inputs)
    _folder(command.out)
    path = command.out / "embedding.npy"
    with path.open("wb") as f:
        np.save(f, z[0], allow_pickle=False)
    yield f"{path}: float32[{z.shape[1]}], a unit vector of {' + '.join(command.inputs)}"


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--out {path}: cannot be made ({e.strerror}); name another folder") from e
