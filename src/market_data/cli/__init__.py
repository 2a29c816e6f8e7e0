"""The command line: parses arguments, opens the app, calls one function, prints."""


def main() -> None:
    """Runs the program with the arguments of the process and exits with its code."""
    from market_data.cli.app import app  # what is imported here delays nothing that only wants the package

    app(prog_name="market-data")
