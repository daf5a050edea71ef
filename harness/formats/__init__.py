"""Readers of the configuration files and tables that the cluster's programs use, one format a file.

Each module has a function ``parse``, from text to frozen dataclasses. It accepts what the program itself accepts and
never raises. The modules import nothing but this package, so that topologies, lint rules and faults can all use them.
"""
