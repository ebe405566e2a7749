"""`python -m histokin` is the same program as `histokin`."""

from histokin.cli import run

run()
