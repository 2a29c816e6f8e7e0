"""What is stored, as it is or was: as of, adjusted, explained, proved."""
