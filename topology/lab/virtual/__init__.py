"""A lab in virtual time: the same containers and daemons, one clock for all kernels, and no thread in the harness."""
