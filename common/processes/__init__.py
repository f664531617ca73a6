"""Starting and stopping the programs: `make run-N`, its child processes, signals, terminals, the steps of a chapter."""
