"""What pages share: server-sent events, form tokens, HTML and JSON answers, the style sheet."""
