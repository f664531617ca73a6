"""The web server code that all strategies share: reading the email, answering, the pages, the guard, listening."""
