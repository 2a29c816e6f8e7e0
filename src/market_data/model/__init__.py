"""The vocabulary: frozen types without I/O, importing nothing else of ours."""
