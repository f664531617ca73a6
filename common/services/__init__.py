"""The embedded services: the inbox and Valkey. All terminals of one checkout share them."""
