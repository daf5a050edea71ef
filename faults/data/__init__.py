"""Faults of the data: NFS, replication, the database, backups."""
