"""4M's masking as a plain sampler in Python, one example at a time: the reference."""

import numpy as np


def share_out(rng, alphas, total, room):
    """Tokens of each modality. PyTorch draws no share of 1: the largest float32 below it."""
    alphas = np.maximum(alphas, 1e-9)
    shares = np.minimum(rng.dirichlet(alphas).astype(np.float32), np.float32(1 - 2**-24))
    counts = np.floor(shares * np.float32(total)).astype(int)
    for _ in range(total - counts.sum()):
        counts[rng.dirichlet(alphas).argmax()] += 1
    return np.minimum(counts, room)


def budgets(rng, inputs, targets, n_in, n_out, sizes, texts):
    """(input, target) tokens of each modality: what an image shows cannot be asked."""
    visible = share_out(rng, inputs, rng.integers(n_in[0], n_in[1] + 1), sizes)
    room = np.where(texts, sizes, sizes - visible)
    return visible, share_out(rng, targets, rng.integers(n_out[0], n_out[1] + 1), room)


def holes(ids, kept, first):
    """(input, target, sentinels' places in the target but for the closing one)."""
    given, asked, places = [], [], []
    for i, token in enumerate(ids):
        if kept[i]:
            given.append(token)
            continue
        if i == 0 or kept[i - 1]:
            places.append(len(asked))
            given.append(first + len(places))
            asked.append(first + len(places))
        asked.append(token)
    return given, [*asked, first + len(places) + 1], places


def cut(target, places, most, u):
    """What is asked of a target."""
    if len(target) <= most or not most:
        return target[:most]
    picked = places[int(u * len(places))]
    if len(target) - picked >= most:
        return target[picked : picked + most]
    return next(target[p:] for p in places if len(target) - p <= most)


def text(rng, ids, scheme, visible, targets, first, begins=None):
    """(input, target). begins: where chunks begin; None = everywhere."""
    keep = {"random": rng.random(), "all": 1.0, "binary": float(rng.random() < 0.5)}[scheme]
    chunk = np.arange(len(ids)) if begins is None else np.cumsum(begins)
    keep = keep if visible else 0.0
    while True:
        kept = (rng.random(chunk.max() + 1) < keep)[chunk]
        given, target, places = holes(ids, kept, first)
        if not visible:
            given = []
        if len(given) <= visible:
            return given, cut(target, places, targets, rng.random())
        keep *= 0.9


def merged(given, asked, first, sentinels):
    """The text, from an input and a whole target."""
    is_sentinel = lambda t: first < t < first + sentinels
    runs, current = {}, None
    for t in asked:
        if is_sentinel(t):
            current = runs.setdefault(t, [])
        else:
            current.append(t)
    return [x for t in given for x in (runs[t] if is_sentinel(t) else [t])]
