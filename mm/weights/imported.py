"""A 4M model as the run of ours that its weights would have ended: `mm.load` reads it, `--config.init` starts from it."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils.epath import Path

import mm
from mm import checkpoint, config, sharding, workdir
from mm import state as states
from mm.data.tokens_4m import Tokens4M
from mm.errors import UserError
from mm.models.encoder_decoder import Model
from mm.space import TokenSpace
from mm.tasks.joint import Contrast, Joint
from mm.weights import m4, m4_modalities
from mm.weights.m4_files import File

COPIED = 256 << 20  # bytes of the parameters that are held twice while they are saved, at least
HUB = re.compile(r"[\w.-]+/[\w.-]+")


def fetched(source: str) -> Path:
    """A file, the one in a folder, or what a Hugging Face hub id ("EPFL-VILAB/4M-7_B_CC12M") names, downloaded once.

    Raises:
      UserError: no such file, and nothing of that name on the hub, or no network.
    """
    path = Path(source)
    if path.is_dir():
        path /= "model.safetensors"
    if path.is_file() or not HUB.fullmatch(source) or path.suffix:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; name a .safetensors, its folder, or a hub id (owner/name)"
            )
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        found = snapshot_download(source, allow_patterns=["model.safetensors", "config.json"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(f"{source}: no such file, and not fetched from the hub ({reason})") from e
    return fetched(found)


def source_of(file: File) -> Tokens4M:
    """The modalities that a file has tables for, with its own vocabularies and sizes, in the order of its config or else 4M's.

    Raises:
      UserError: a modality that 4M has not.
    """
    sides = {
        side: [n for n in _names(file) if f"{side}_embeddings.{n}.pos_emb" in file or f"{side}_embeddings.{n}.mod_emb" in file]
        for side in ("encoder", "decoder")
    }  # fmt: skip
    overrides: dict[str, dict[str, Any]] = {}
    for side, names in sides.items():
        for name in names:
            row = m4_modalities.MODALITIES[name]
            own = overrides.setdefault(name, {})
            if (key := f"{side}_embeddings.{name}.token_emb.weight") in file:
                own["vocab_size"] = file.shapes[key][0]
            places = file.shapes.get(f"{side}_embeddings.{name}.pos_emb", (1, 0))[1]
            if row.type == "img" and places:
                own["max_tokens"] = places
    size = int(file.config.get("image_size") or _side(file))
    t5 = file.shapes.get("encoder_embeddings.t5_caption.emb_proj.weight", (0, 4096))[1]
    patch = int(file.config.get("patch_size") or 16)
    changed = {n: o for n, o in overrides.items() if o != _usual(n)}
    return Tokens4M(
        inputs=tuple(sides["encoder"]), targets=tuple(sides["decoder"]), image_size=size, patch_size=patch,
        t5_dim=t5, overrides=changed,
    )  # fmt: skip


def _usual(name: str) -> dict[str, Any]:
    row = m4_modalities.MODALITIES[name]
    usual = {"vocab_size": row.vocabulary} if row.vocabulary else {}
    return usual | ({"max_tokens": row.max_tokens} if row.type == "img" else {})


def _side(file: File) -> int:
    """Pixels of a side, of the patches that a file has places for; 4M's usual where it reads none."""
    for size in (224, 448):
        shape = file.shapes.get(f"encoder_embeddings.rgb@{size}.pos_emb")
        if shape:
            return 224 * round(16 * shape[1] ** 0.5) // size
    return 224


def _names(file: File) -> list[str]:
    """All modalities of a file. Raises UserError: one that 4M has not."""
    found = {k.split(".")[1] for k in file.shapes if re.match(r"(en|de)coder_embeddings\.", k)}
    if unknown := sorted(found - m4_modalities.MODALITIES.keys()):
        raise UserError(f"{file.path}: {', '.join(unknown)}: no modality of 4M's table")
    said = [*file.config.get("domains_in", ()), *file.config.get("domains_out", ())]
    order = [*dict.fromkeys(said), *m4_modalities.MODALITIES]
    return sorted(found, key=order.index)


def experiment(source: Tokens4M, settings: Model, name: str) -> config.Experiment:
    """Masked generation alone, as 4M trains it."""
    task = Joint(model=settings, contrast=Contrast(weight=0.0))
    return config.Experiment(name=name, task=task, data=config.Data(source=source), steps=0)


def write(path: Path, out: Path, name: str = "") -> tuple[Model, TokenSpace]:
    """Writes a file's model as a run: config.json, which is the manifest, and a checkpoint of step 0.

    Raises:
      UserError: `out` holds something else already, or the file is no model of 4M's; nothing is left behind then.
    """
    if out.exists():
        raise UserError(f"--out {out}: exists already; name a new folder")
    file = File(path)
    settings, source = m4.model_of(file), source_of(file)
    space = source.space
    exp = experiment(source, settings, name or path.parent.name or "4m")
    mesh = sharding.make_mesh(exp.mesh, exp.data.batch_size)
    placed = lambda path, x: jax.sharding.NamedSharding(mesh, sharding.spec(f"params/{path}", x.shape, mesh))  # fmt: skip
    params = m4.read(file, settings, space, placed)
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists():
        partial.rmtree()
    mark = config.fingerprint(exp)
    facts = {
        "imported": {
            "file": path.name,
            "keys": len(file.shapes),
            "parameters": states.count(params),
        }
    }
    known = {"version": mm.__version__, "fingerprint": mark, "experiment": config.to_json(exp)}
    workdir.write_json(partial / "config.json", known | facts)
    largest = max(x.nbytes for x in jax.tree.leaves(params))
    kept = checkpoint.Checkpoints(partial / "checkpoints", 1, copied_at_once=max(largest, COPIED))
    state = {"params": params, "buffers": {}, "opt": {}, "ema": {}, "step": np.zeros((), np.int32)}
    meta: Mapping[str, Any] = {"data": "", "tokenizers": {}, "config": mark, "spent": {"seconds": 0.0, "starts": 0}, "machine": {}}  # fmt: skip
    kept.save(0, state, dict(meta))
    kept.close()
    partial.rename(out)
    return settings, space


def export(run: Path, out: Path) -> int:
    """The newest checkpoint of a run as a file of 4M's; returns how many tensors it has.

    Raises:
      UserError: no run of a joint model, or one with parts that 4M has not.
    """
    exp, checkpoints, step = checkpoint.of_run(run)
    source, task = exp.data.source, exp.task
    if not isinstance(task, Joint):
        raise UserError(f"{run}: the run of {exp.name!r} trained no joint model; name one that did")
    if not isinstance(source, Tokens4M) or source.added:
        alien = ", ".join(source.added) if isinstance(source, Tokens4M) else "its modalities"
        raise UserError(
            f"{run}: a 4M model has no form for {alien}; only those of 4M's own tokens have one"
        )
    part, settings, space = exp.optim.evaluated, task.model, source.space
    m4.pieces(settings, space)  # whether it has a form
    params, _ = jax.eval_shape(task.build_for(space).init, jax.random.key(0))
    params = checkpoints.restore_part(step, {part: params})[part]
    facts = m4.config_of(settings, space, source.image_size, source.patch_size)
    return m4.write(out, params, settings, space, facts)
