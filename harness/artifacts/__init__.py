"""The files of a run directory: how they are named, read and written, and those for other programs."""
