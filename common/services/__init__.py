"""The embedded services: the inbox, Valkey and NATS. All terminals of one checkout share them."""
