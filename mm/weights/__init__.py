"""Trained models as single files, to be given away: safetensors with what is needed to use them in their metadata.

exported     writes and reads them; `python -m mm.weights export RUN --out FILE` makes one of a run
shipped/     the models that come with mm, each with its card; `mm.load()` opens the first
"""
