"""Faults of the network: cables, traffic, packet filters, ARP."""
