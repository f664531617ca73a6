"""The email, the mailer that all six strategies share, and the rules for retries."""
