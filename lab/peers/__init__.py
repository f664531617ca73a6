"""`make bench PEERS=1`: our queue beside seven others, with the same job, the same Valkey and the same fsync.

Each peer is installed into a folder of its own, .data/peers/NAME, in the version that versions.json pins. Its program
is in lab/bench/peers.
"""
