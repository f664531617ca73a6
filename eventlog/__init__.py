"""An immutable log of events in Redis that any number of consumers read, each at its own pace.

log          the interface of both logs, its keys and its guarantees: read this first
partitions   the log on lists and Lua; tail, reader and inspection are its parts
streams      the same log on Redis Streams
jetstream    the same log on NATS JetStream; jetstream_inspection and nats_* are its parts
interface    what consumers, producers and the page need of any of them
consumers    claim, handle, commit; retries and parked events
handlers     what a consumer calls
syndication  an event becomes a job in the queue of each application that subscribed
dashboard    the page at /log
"""
