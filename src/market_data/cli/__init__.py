"""The command line: parses arguments, opens the app, calls one function, prints."""


def main() -> None:
    """Runs the program with the arguments of the process and exits with its code."""
    import sys

    from market_data.cli.title import hide_database_url

    hide_database_url(sys.argv[1:])
    from market_data.model.allocation import keep_freed_memory

    # Before the first library makes its threads, which would get heaps of their own.
    keep_freed_memory()
    from market_data.cli.app import app  # what is imported here delays nothing that only wants the package

    app(prog_name="market-data")
