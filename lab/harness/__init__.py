"""What the experiments share: child processes, mail servers that record each email, the account of a run, figures."""
