"""Submitting a run to Cloud TPU: python -m mm.launch. What is here writes commands and manifests for the existing tools
(gcloud, kubectl, xpk); it talks to no cloud itself."""
