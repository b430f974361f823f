"""A folder of one's own: pictures, sounds and captions that belong together by their names.

    my_data/images/cat-01.jpg      PNG, JPEG, WebP, BMP or GIF
    my_data/audio/cat-01.wav       WAV, FLAC, OGG, MP3 or AIFF, at most a minute
    my_data/captions.jsonl         {"stem": "cat-01", "caption": "a cat asleep", "label": "cat"}

What a file is called without its suffix is its stem (subfolders are part of it); one stem is one
example. A stem may lack modalities, and may have several captions: lines of the same stem. Instead
of "stem" a line may say "image", "audio" or "file", the name of a file. "label" is optional:
examples of one label are each other's positives in the contrast, and what retrieval counts as
found; without it each is on its own.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils.epath import Path

from mm.data import check_modalities
from mm.data.aligned import SPLITS, Aligned, AlignedSource
from mm.data.captions import read_captions
from mm.data.columns import LazyColumn, TextColumn, digest
from mm.data.form import Form
from mm.data.records import CorruptLog, Records
from mm.errors import UserError
from mm.tokenizers import files, recordings

MODALITIES = ("image", "audio", "text")
PLACES = {"image": "images", "audio": "audio", "text": "captions.jsonl"}
SUFFIXES = {
    "image": {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"},
    "audio": {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif"},
}
HEAD = 1 << 16  # bytes of a file that its fingerprint reads


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class Folder(AlignedSource):
    """Source of a folder's pictures, sounds and captions. See `mm.data.Source`.

    Columns: `image` uint8[n, H, W] or [n, H, W, 3]; `audio` float32[n, length] at `form.rate`;
    `text` strings. Files are read and decoded when their rows are asked for. A column's fingerprint
    covers its files' names, sizes and first 64 KiB: not their times, which copying changes, and not
    all of their contents, which would be read at every start.

    Attributes:
      path: the folder.
      modalities: which columns there are; a part of image, audio, text.
      form: what pictures and sounds are brought to.
      validation, test: per cent of the stems, chosen by a hash of each: more files move none.
    """

    path: str
    modalities: tuple[str, ...] = MODALITIES
    form: Form = dataclasses.field(default_factory=Form)
    validation: float = 5.0
    test: float = 5.0

    def validate(self) -> None:
        """Raises UserError naming a setting that makes no sense, or what the folder lacks."""
        check_modalities(self.modalities, MODALITIES)
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 100:
            found = f"validation={self.validation}, test={self.test}"
            raise UserError(
                f"config.data.source: {found}: per cent of the stems, above 0, less than 100 together"
            )
        self.form.validate()
        for name in self.modalities:
            place, wanted = Path(self.path) / PLACES[name], "file" if name == "text" else "folder"
            if not (place.is_file() if name == "text" else place.is_dir()):
                raise UserError(
                    f"{place}: no such {wanted}; make it, mend config.data.source.path, or take "
                    f"{name!r} out of config.data.source.modalities"
                )

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Lists the folder, and reads captions and every file's header.

        Raises:
          UserError: wrong settings; a bad line of captions; a file that cannot be read, has 0 s or
            more than a minute; stems of which nothing belongs together; a split without a modality.
        """
        self.validate()
        root = Path(self.path)
        found = {m: _list(root / PLACES[m], SUFFIXES[m]) for m in ("image", "audio")}
        captions, labels = read_captions(root / PLACES["text"], set().union(*found.values()))
        self._check_aligned(found | {"text": captions})
        lengths = {}
        for name in set(self.modalities) - {"text"}:
            lengths[name] = _inspect(found[name], CHECKS[name], corrupt)
            found[name] = {stem: found[name][stem] for stem in lengths[name]}
        names = {label: i for i, label in enumerate(sorted(set(labels.values())))}
        stems = sorted(set().union(*found.values(), captions))
        group = {s: i + len(names) for i, s in enumerate(stems)}
        group |= {s: names[label] for s, label in labels.items()}
        rows: dict[str, Any] = found | {"text": captions}
        used = [s for s in stems if any(s in rows[m] for m in self.modalities)]
        _say_lacking(self.path, used, {m: rows[m] for m in self.modalities})
        self._splits = {}
        for split in SPLITS:
            chosen = [s for s in used if self.split_of(s) == split]
            columns = {
                m: self._column(m, rows[m], chosen, lengths, corrupt) for m in self.modalities
            }
            count = {
                m: np.array([_count(rows[m], s) for s in chosen], np.int64) for m in self.modalities
            }
            self._splits[split] = Aligned(
                columns=columns,
                count=count,
                group=np.array([group[s] for s in chosen], np.int32),
            )
        self._check_splits()

    def split_of(self, stem: str) -> str:
        """The split a stem is in, by its hash alone."""
        mark = int.from_bytes(hashlib.blake2b(stem.encode(), digest_size=8).digest())
        place = 100 * mark / 2**64
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"

    def _column(
        self,
        name: str,
        rows: Mapping[str, Any],
        stems: list[str],
        lengths: Mapping[str, Mapping[str, dict[str, float]]],
        corrupt: CorruptLog,
    ) -> Any:
        """The rows of the stems that have any, in their order."""
        stems = [s for s in stems if s in rows]
        if name == "text":
            return TextColumn([text for s in stems for text in rows[s]])
        paths = [rows[s] for s in stems]
        read = self.form.read_picture if name == "image" else self.form.read_sound
        records = Records(paths, corrupt, locate=functools.partial(_located, paths), decode=read)
        known = [lengths[name][s] for s in stems]
        units = {unit: np.array([k[unit] for k in known]) for unit in (known[0] if known else {})}
        mark = digest(json.dumps(dataclasses.asdict(self.form)), *(_mark(p) for p in paths))
        return LazyColumn(
            records, mark, lengths=units, rate=self.form.rate if name == "audio" else 0
        )

    def _check_aligned(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        shown = {m: sorted(rows[m]) for m in self.modalities}
        for name, stems in shown.items():
            if not stems:
                raise UserError(
                    f"{Path(self.path) / PLACES[name]}: holds no {name} that can be read; add some, or "
                    f"take {name!r} out of config.data.source.modalities"
                )
        times = [stem for stems in shown.values() for stem in stems]
        if len(shown) > 1 and len(set(times)) == len(times):
            example = ", ".join(f"{stems[0]!r} in {PLACES[m]}" for m, stems in shown.items())
            raise UserError(
                f"{self.path}: no two modalities share a stem ({example}); give the files of one "
                "example the same name, up to the suffix"
            )

    def _check_splits(self) -> None:
        for split, part in self._splits.items():
            for name in self.modalities:
                if not len(part.columns[name]):
                    total = sum(len(p.columns[name]) for p in self._splits.values())
                    raise UserError(
                        f"{self.path}: {total} {name} rows, and none of them in the split {split!r}; add "
                        f"examples, or raise config.data.source.validation and .test"
                    )


def _say_lacking(path: str, stems: list[str], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line where examples lack a modality: it may be meant, or a misspelt name."""
    lacking = {m: [s for s in stems if s not in rows[m]] for m in rows}
    parts = [f"{len(ss):,} have no {m} ({ss[0]!r}, ..)" for m, ss in lacking.items() if ss]
    if parts:
        print(f"{path}: {len(stems):,} stems, {', '.join(parts)}", flush=True)


def _count(rows: Mapping[str, Any], stem: str) -> int:
    found = rows.get(stem, [])
    return len(found) if isinstance(found, list) else 1


def _located(paths: list[Path], index: int) -> tuple[str, None]:
    return str(paths[index]), None


def _list(folder: Path, suffixes: set[str]) -> dict[str, Path]:
    """Files by stem; hidden ones and those of other suffixes are passed over.

    Raises:
      UserError: two files of one stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(path / name for path, _, names in folder.walk() for name in names):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        stem = inside.with_suffix("").as_posix()
        if stem in found:
            raise UserError(
                f"{path}: the stem {stem!r} is that of {found[stem].name} too; rename one"
            )
        found[stem] = path
    return found


def _size(path: Path) -> dict[str, float]:
    width, height = files.open_picture(path, decode=False).size
    return {"pixels wide": width, "pixels high": height}


CHECKS: dict[str, Callable[[Path], dict[str, float]]] = {
    "image": _size,
    "audio": lambda path: {"seconds": recordings.seconds(path)},
}


def _inspect(
    paths: Mapping[str, Path], check: Callable[[Path], dict[str, float]], corrupt: CorruptLog
) -> dict[str, dict[str, float]]:
    """What the headers say, by stem; stems whose files cannot be read are refused and left out."""
    found = {}
    for stem, path in paths.items():
        try:
            found[stem] = check(path)
        except UserError as e:
            hint = "" if corrupt.limit is None else " (--mode=check-data names all such files)"
            corrupt.refuse(f"{e}{hint}")
    return found


def _mark(path: Path) -> str:
    with path.open("rb") as f:
        head = hashlib.blake2b(f.read(HEAD), digest_size=8).hexdigest()
    return f"{path.name} {path.stat().length} {head}"
