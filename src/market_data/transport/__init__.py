"""How bytes move; knows no venue."""
