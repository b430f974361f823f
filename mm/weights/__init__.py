"""Trained models as single files, to be given away: safetensors with what is needed to use them in their metadata.

exported     writes and reads them; `python -m mm.weights export RUN --out FILE` makes one of a run
m4, imported 4M's weights in and out: one table of names; a run of them. m4_presets, m4_modalities: its sizes and token spaces
m4_files     4M's files; m4_tokenizers, m4_tokenizer_settings: those of its tokenizers
parity       whether the original computes the same: models, and parity_tokenizers
shipped/     the models that come with mm, each with its card; `mm.load()` opens the first
"""
