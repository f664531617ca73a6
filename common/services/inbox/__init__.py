"""The embedded inbox: a mail server on loopback that shows every email, delivers none, and can inject faults.

What it is       A real SMTP server (aiosmtpd) and a page, in its own process (`python -m common.services.inbox`), on
                 the ports INBOX_SMTP_PORT and INBOX_PORT. It keeps running when servers and workers are killed.
What it keeps    The newest 10,000 emails in memory, nothing on disk. It counts all emails that arrive.
What a copy is   An email with the Message-ID of an earlier one. The list has only the latest copy, and `copies` says
                 how many have arrived. At any moment, received = unique + duplicates.

    GET    /                 the page
    GET    /health           200
    GET    /api/messages     the emails, newest first; select with ?limit=50 (1 to 10,000) &to=ADDRESS &message_id=ID.
                             Each has message_id, from, to, subject, text, received_at (ISO 8601, UTC), copies
    DELETE /api/messages     empty the inbox, set the counts to 0, and forget the greylisted senders and recipients
    GET    /api/stats        received, unique, duplicates
    GET    /api/faults       the injected faults; `faults.py` explains each of them
    PUT    /api/faults       change some of them: {"latency_ms": 100} leaves the others; answers the new state
    GET    /api/events       server-sent events: the stats when they have changed, at most 10 times a second

An invalid request is answered with 400 and {"error": {"field", "reason"}}.
"""
