"""Checks before the roles start that RabbitMQ can be used."""

from importlib.util import find_spec

from common.settings import Settings, exit_with_usage_error


async def refuse_unusable(settings: Settings) -> None:
    """End the program with one line and exit status 2 if the client is missing or RabbitMQ at AMQP_URL does not answer.

    The embedded RabbitMQ itself reports why it does not start.
    """
    if find_spec("aio_pika") is None:
        exit_with_usage_error("QUEUE: rabbitmq needs its client; `make .venv/ready-rabbitmq` installs it")
    if settings.amqp_url is None:
        return
    from common.amqp.link import CannotConnect, connect

    try:
        await (await connect(settings.amqp)).close()
    except CannotConnect as error:
        exit_with_usage_error(f"AMQP_URL: {error}")
