"""Whether RabbitMQ can be used at all, before a role starts that could only repeat in its log that it cannot."""

from importlib.util import find_spec

from common.settings import Settings, exit_with_usage_error


async def refuse_unusable(settings: Settings) -> None:
    """End the program with one line and exit status 2 without the client, or when AMQP_URL leads to no RabbitMQ.

    The embedded RabbitMQ says itself why it does not start.
    """
    if find_spec("aio_pika") is None:
        exit_with_usage_error("QUEUE: rabbitmq needs its client; `make .venv/ready-rabbitmq` installs it")
    if settings.amqp_url is None:
        return
    from common.amqp import CannotConnect, connect

    try:
        await (await connect(settings.amqp)).close()
    except CannotConnect as error:
        exit_with_usage_error(f"AMQP_URL: {error}")
