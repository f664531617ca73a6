"""Work queues on RabbitMQ, with retries and a failed list. Needs aio-pika, which the extra `rabbitmq` installs.

link      a connection that is opened again after it broke
queues    the queues of one kind of work; publishing with a confirm
consumer  the worker: it handles messages, acknowledges them, retries them, and gives them up
limit     one limit of emails per second for all workers
failed    the failed list on the command line
"""
