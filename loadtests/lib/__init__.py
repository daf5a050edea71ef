"""What the load's programs share; it imports the standard library and dnslib only, as it runs on client nodes."""
