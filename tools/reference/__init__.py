"""The pages of docs/reference, made from what the program declares."""
