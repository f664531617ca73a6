"""`make bench`: how fast the parts are, each beside a reference that was measured in the same run."""
