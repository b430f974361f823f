"""`tests.tokens` as a config file; its argument is the folder that holds `tokenizers/`."""

from tests.tokens import get_config

__all__ = ["get_config"]
