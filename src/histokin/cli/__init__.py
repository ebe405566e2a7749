"""The command line: one thin command a file. Parses, makes one library call, shows what came out."""

from histokin.cli.program import run

__all__ = ["run"]
