"""The web frame around every strategy: reading the email, answering, the pages, the guard, listening."""
