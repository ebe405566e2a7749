"""The program: commands loaded by name when they are called, errors shown as one sentence, exit codes.

0 all done, 1 failed, 2 wrong usage, 3 done but some slides could not be used, 130 interrupted (143 by SIGTERM).
"""

import importlib
import os
import signal
import sys
from types import FrameType

import click

COMMANDS = {
    "demo": "Make a generated cohort and run everything on it.",
    "run": "Everything: from a folder of slides to encoder, search and report.",
    "info": "List slides: size, mpp, state and its reason.",
    "tile": "Find tissue and lay tiles.",
    "pretrain": "Train an encoder on a workspace's tiles without labels.",
    "embed": "Turn tiles into vectors.",
    "index": "Keep a search index: build, check, remove, compact, info.",
    "search": "Show where a tile, region, picture or slide is found elsewhere.",
    "evaluate": "Measure retrieval under honest exclusion, beside the floors.",
    "mil": "Classify slides: train and judge, predict, heatmap, compare.",
    "compare": "Train several encoders with one budget and judge them side by side.",
    "report": "Write the report page.",
}
INTERRUPTED, TERMINATED, EXCLUSIONS = 130, 143, 3


class _Terminated(BaseException):
    """SIGTERM, turned into an exception so that files are closed and nothing is left half written."""


class Program(click.Group):
    """Imports a command's module only when it is asked for: `--help` must not wait for NumPy."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(cmd_name, COMMANDS, 1)
            hint = f" Did you mean {near[0]}?" if near else f" Known: {', '.join(COMMANDS)}."
            ctx.fail(f"There is no command {cmd_name!r}.{hint}")
        return importlib.import_module(f"histokin.cli.commands.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version() -> str:
    from importlib.metadata import version

    return version("histokin")


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001
    if value:
        click.echo(f"histokin {_version()}")
        ctx.exit()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """From a folder of whole-slide images to an encoder, a tissue search and honest figures."""
    ctx.obj = {"debug": debug}


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal handler's signature
    raise _Terminated


def run() -> None:
    """Run the program and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    is_debug = "--debug" in sys.argv[1:3]
    try:
        code = main.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _interrupted(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, _Terminated) as stop:
        code = _interrupted(TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED)
    except Exception as error:
        from histokin.errors import HistokinError

        if is_debug:
            raise
        known = isinstance(error, (HistokinError, OSError))
        said = (
            str(error) if known else f"unexpected {type(error).__name__}: {error}. `histokin --debug ...` shows where"
        )
        click.echo(f"{_speaker()}: {said}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _speaker() -> str:
    """Who has met an error: under torchrun each process speaks for itself, and one alone may have failed."""
    return f"histokin, process {os.environ['RANK']}" if os.environ.get("WORLD_SIZE", "1") != "1" else "histokin"


def _interrupted(code: int) -> int:
    click.echo("\nInterrupted. What is finished is kept: the same command goes on from there.", err=True)
    return code
