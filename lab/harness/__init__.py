"""What the experiments share: child processes, mail servers that remember, the account of a run, figures."""
