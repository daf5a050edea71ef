"""The files of a run directory: where they are, how they are read, and those made for other programs."""
