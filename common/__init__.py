"""What the six strategies share.

settings   the settings, read once at the start from the environment and from .env
address    hosts and ports: what to bind, what to print
smtp_url   the mail server that SMTP_URL names
handover   what an error of Redis means for an email
mail       the email, the mailer, the rules for retries
http       the web frame, the guard, listening, the chapters as pages
processes  `make run-N`: children, signals, terminals, the steps of a chapter
services   the embedded inbox, Valkey, RabbitMQ and NATS
amqp       a work queue on RabbitMQ, with retries and a failed list
"""
