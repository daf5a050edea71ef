"""Load for the site: virtual users, probes and connections, and how their ops become part of a run's history.

``probe``, ``connections`` and ``locustfile`` are copied to the client node and import nothing of this project but
``lib``. Never import ``locustfile`` into the harness: Locust patches the interpreter it is imported into.
"""
