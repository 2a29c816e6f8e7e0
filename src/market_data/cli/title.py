"""The process's title without the database's password, which everybody on the machine could read there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

OPTION: Final = "--database-url"


def hide_database_url(arguments: Sequence[str]) -> None:
    """Show the process under a title in which the value of --database-url is left out, when there is one."""
    if not any(argument.startswith(OPTION) for argument in arguments):
        return
    from setproctitle import setproctitle

    title = " ".join(("market-data", *shown(arguments)))
    setproctitle(title.encode(errors="backslashreplace").decode())


def shown(arguments: Sequence[str]) -> list[str]:
    """The arguments as everybody may see them.

    >>> shown(["serve", "--database-url", "postgresql://me:pw@host/name", "--port", "1"])
    ['serve', '--database-url', '***', '--port', '1']
    >>> shown(["status", "--database-url=postgresql://me:pw@host/name"])
    ['status', '--database-url=***']
    """
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] == OPTION:
            found.append("***")
        else:
            found.append(f"{OPTION}=***" if argument.startswith(f"{OPTION}=") else argument)
    return found
