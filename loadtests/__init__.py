"""Load and probes: the programs that run on the client node, and the feeds that turn their lines into ops.

``probe`` and ``locustfile`` stand alone: they are copied to the client node and import nothing of this project.
Never import ``locustfile`` into the harness: Locust patches the interpreter it is imported into.
"""
