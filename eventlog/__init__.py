"""An immutable log of events in Redis that any number of consumers read, each at its own pace.

log          the interface of both logs, its keys and its guarantees: read this first
partitions   the log on lists and Lua; tail, reader and inspection are its parts
streams      the same log on Redis Streams
consumers    claim, handle, commit; retries and parked events
handlers     what a consumer calls
syndication  an event becomes a job in the queue of each application that subscribed
dashboard    the page at /log
"""
