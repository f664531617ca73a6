"""Shared by all pages: server-sent events, form tokens, HTML and JSON answers, the style sheet."""
