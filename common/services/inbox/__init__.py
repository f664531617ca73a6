"""The embedded inbox: a mail server on loopback that delivers nothing, shows everything, and can misbehave on request.

What it is       A real SMTP server (aiosmtpd) and a page, in its own process (`python -m common.services.inbox`), at
                 the ports INBOX_SMTP_PORT and INBOX_PORT. It outlives the servers and workers it watches.
What it keeps    The newest 10,000 emails in memory, nothing on disk. It counts all of them.
What a copy is   An email that arrives again with a Message-ID seen before. Such an email is listed once, at the place
                 and with the content of its latest arrival; `copies` says how often it has come.
                 received = unique + duplicates holds at any moment.

    GET    /                 the page
    GET    /health           200
    GET    /api/messages     newest first; ?limit=50 (1 to 10,000) &to=ADDRESS &message_id=ID pick exactly these:
                             message_id, from, to, subject, text, received_at (ISO 8601, UTC), copies
    DELETE /api/messages     empty the inbox, counts at 0
    GET    /api/stats        received, unique, duplicates
    GET    /api/faults       the dial of faults; `faults.py` says what each one does
    PUT    /api/faults       turn it: {"latency_ms": 100} changes that one and leaves the others; answers the new state
    GET    /api/events       server-sent events: the stats, whenever they have changed, at most 10 times a second

A mistake of the caller is 400 and {"error": {"field", "reason"}}.
"""
