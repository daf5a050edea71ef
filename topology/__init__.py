"""The cluster: topologies, images for each role, and the code that brings nodes, kernels and the switch to life."""
