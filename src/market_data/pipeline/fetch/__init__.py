"""Ask sources until the range is answered."""
