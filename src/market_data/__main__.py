"""``python -m market_data`` is the program ``market-data``."""

from market_data.cli import main

if __name__ == "__main__":
    main()
