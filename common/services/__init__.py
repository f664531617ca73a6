"""The embedded services: the inbox, Valkey and NATS, real servers that all terminals of one checkout share."""
