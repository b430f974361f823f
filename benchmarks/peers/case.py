"""What both sides compute: a model of 4M's, a batch in 4M's form, a plan of generation. Needs NumPy alone."""

import numpy as np

NAMES_IN = ("rgb@224", "tok_rgb@224", "tok_depth@224", "caption")
NAMES_OUT = NAMES_IN[1:]
VOCABULARIES = {"tok_rgb@224": 16384, "tok_depth@224": 8192, "caption": 30000}
SEEN, ASKED, BATCH, TOKENS = 128, 128, 8, 196
SIZES = {"tiny_6e_6d": (384, 6, 6), "small_8e_8d": (512, 8, 8), "base_12e_12d": (768, 12, 12)}
"""Width, layers on each side, heads; gated MLP, no biases."""


def batch(rows: int = BATCH, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Modality -> tensor, input_mask, target_mask (True = not used), decoder_attention_mask: full budgets, no padding."""
    rng, found = np.random.default_rng(seed), {}
    for name in NAMES_IN:
        if name == "caption":
            found[name] = _text(rng, rows)
            continue
        order = rng.permuted(np.tile(np.arange(TOKENS), (rows, 1)), axis=1)
        seen, asked = (40, 0) if name.startswith("rgb") else (36, 56)
        tensor = rng.integers(0, VOCABULARIES.get(name, 2), (rows, 14, 14))
        if name.startswith("rgb"):
            tensor = rng.normal(size=(rows, 3, 224, 224)).astype(np.float32)
        attention = np.zeros((rows, TOKENS), np.int32)
        target = ~((order >= seen) & (order < seen + asked))
        attention[np.arange(rows), (~target).argmax(1)] = asked
        found[name] = {
            "tensor": tensor, "input_mask": order >= seen, "target_mask": target, "decoder_attention_mask": attention,
        }  # fmt: skip
    return found


def _text(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """16 tokens seen, 17 in the target, of which 16 are asked for."""
    length, place = 2 * 257, np.arange(2 * 257)
    tensor = rng.integers(4300, VOCABULARIES["caption"], (rows, length)).astype(np.int32)
    tensor[:, 15], tensor[:, 16] = 5, 5  # the sentinel
    masks = (np.tile(~m, (rows, 1)) for m in (place < 16, (place >= 16) & (place < 33)))
    seen, asked = masks
    return {"tensor": tensor, "input_mask": seen, "target_mask": asked, "decoder_attention_mask": (~asked).astype(np.int32)}  # fmt: skip


def serve(work: dict) -> None:
    """Reads names of work from standard input; of each writes a line: seconds of CPU that it took."""
    import sys
    import time

    print("ready", flush=True)
    for line in sys.stdin:
        began = time.process_time()
        work[line.strip()]()
        print(f"{time.process_time() - began:.6f}", flush=True)
