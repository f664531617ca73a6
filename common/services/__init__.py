"""The embedded services: the inbox, Valkey, RabbitMQ and NATS. All terminals of one checkout share them."""
