"""How the program ends: exit codes, and every error as one line that says what to do."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from market_data.cli import streams
from market_data.cli.output import say
from market_data.cli.signals import unwind_on_signals
from market_data.model.errors import ConfigError, MarketDataError, UsageError

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
PARTLY_DONE: Final = 3

# Options of the whole program, accepted before and after the command.
GLOBAL_FLAGS: Final = ("--sandbox", "--debug")
GLOBAL_VALUES: Final = ("--config", "--data-dir", "--database-url", "--log-level")


class Program(TyperGroup):
    """The command group at the top; ends the process itself, so that tests and users see the same."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Runs the command named by `args` and exits: 0 done, 1 failed, 2 wrong usage, 3 partly done."""
        arguments = globals_first(list(sys.argv[1:] if args is None else args))
        extra["standalone_mode"] = False
        streams.prepare()
        unwind_on_signals()
        code = self._run(arguments, *rest, **extra)
        if error := streams.finish():
            print_error(f"the output cannot be written: {error.strerror}")
            code = code or FAILED
        sys.exit(code)

    def _run(self, arguments: list[str], *rest: Any, **extra: Any) -> int:
        if any(not _is_text(argument) for argument in arguments):
            print_error("an argument is no text in this terminal's encoding: set LC_ALL=C.UTF-8 or PYTHONUTF8=1")
            return WRONG_USAGE
        try:
            outcome = super().main(arguments, *rest, **extra)
        except typer.TyperException as error:
            print_error(_with_hint(error))
            return WRONG_USAGE
        except typer.Abort:
            print_error("stopped; what was committed is kept")
            return FAILED
        except (UsageError, ConfigError) as error:
            print_error(str(error))
            return WRONG_USAGE
        except MarketDataError as error:
            print_error(str(error))
            return FAILED
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO, errno.EPIPE, errno.EBADF):
                return self._unexpected(error, arguments)
            streams.finish()
            print_error(f"cannot be written: {error.strerror}{f' ({error.filename})' if error.filename else ''}")
            return FAILED
        except Exception as error:  # the last line of defence: told in one line, in full with --debug
            return self._unexpected(error, arguments)
        return outcome if isinstance(outcome, int) else DONE

    def _unexpected(self, error: Exception, arguments: Sequence[str]) -> int:
        if "--debug" in arguments:
            traceback.print_exc()
        print_error(f"unexpected {type(error).__name__}: {error}; run it with --debug for the traceback")
        return FAILED


def globals_first(arguments: list[str]) -> list[str]:
    """The arguments with the options of the whole program moved to the front, where the parser expects them.

    >>> globals_first(["status", "BTC", "--sandbox", "--config", "a.yaml"])
    ['--sandbox', '--config', 'a.yaml', 'status', 'BTC']
    """
    front: list[str] = []
    others: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            others += [argument, *waiting]
        elif argument in GLOBAL_FLAGS or argument.startswith(tuple(f"{name}=" for name in GLOBAL_VALUES)):
            front.append(argument)
        elif argument in GLOBAL_VALUES:
            value = next(waiting, None)
            # Without its value it stays last, where the parser sees what is missing.
            target, added = (others, [argument]) if value is None else (front, [argument, value])
            target += added
        else:
            others.append(argument)
    return front + others


def _is_text(argument: str) -> bool:
    """Whether no byte of it was left undecoded."""
    return not any("\udc80" <= letter <= "\udcff" for letter in argument)


def print_error(message: str) -> None:
    """One line on stderr, whatever line breaks the message has."""
    say(message, "error")


def _with_hint(error: typer.TyperException) -> str:
    message = error.format_message().replace("Value error, ", "").rstrip(". ") + "."
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    commands = getattr(context.command, "commands", None)
    if commands and ("Missing command" in message or "No such command" in message):
        message = f"{message} Valid: {', '.join(sorted(commands))}."
    return f"{message} See '{context.command_path} --help'."
