"""mm.main, imported and ready: it starts when a line comes on standard input. For tests that start it often."""

import sys

import jax
import orbax.checkpoint

import mm.train
from mm.main import main

del jax, orbax, mm
if __name__ == "__main__":
    sys.stdin.readline()
    sys.exit(main())
