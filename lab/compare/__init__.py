"""`make compare`: the six strategies side by side."""
