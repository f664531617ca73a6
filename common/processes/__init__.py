"""How the programs start and stop: `make run-N`, its children, signals, terminals, the steps of a chapter."""
