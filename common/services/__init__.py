"""The embedded services: the inbox and Valkey, real servers that all terminals of one checkout share."""
