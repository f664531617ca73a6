"""What the six strategies share: settings, the email, the mailer, the web frame, retry rules, processes, services."""
