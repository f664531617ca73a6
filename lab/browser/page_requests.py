"""What the page may ask for: the bodies of `POST /do`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Name = Literal["1", "2", "3", "4", "5", "6"]
Names = Annotated[list[Name], Field(min_length=1, max_length=6)]
Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetLoad(_Body):
    do: Literal["load"]
    lanes: Names
    rate: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)]


class SendBurst(_Body):
    do: Literal["burst"]
    lanes: Names
    count: Annotated[int, Field(ge=1, le=1000)]


class TurnDial(_Body):
    do: Literal["dial"]
    latency_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    refuse_rate: Rate = 0.0
    refuse_code: Literal[421, 451, 550] = 451
    hang_rate: Rate = 0.0
    lose_reply_rate: Rate = 0.0


class SendSignal(_Body):
    """Send a signal to this process of the lane or, without `pid`, to the newest process with this role.

    With `predicted`, stop the load afterwards and wait until the accounts close.
    """

    do: Literal["signal"]
    lane: Name
    role: Literal["server", "worker", "master", "scheduler", "broker", "nats", "redis"]
    how: Literal["kill", "term", "freeze", "thaw"]
    pid: int | None = None
    predicted: bool = False


class AddWorker(_Body):
    do: Literal["worker"]
    lane: Name


class Switch(_Body):
    do: Literal["switch"]
    lane: Name
    subject: str


class RunExperiment(_Body):
    do: Literal["experiment"]
    name: Literal["worker", "hang", "two", "redis", "reply"]


class Heal(_Body):
    """Stop the load, the faults and the added workers, thaw frozen processes, and begin new accounts."""

    do: Literal["heal"]


Wanted = SetLoad | SendBurst | TurnDial | SendSignal | AddWorker | Switch | RunExperiment | Heal
BODY: TypeAdapter[Wanted] = TypeAdapter(Annotated[Wanted, Field(discriminator="do")])
