"""A dead-link checker on the queue. `make example-links URL=https://example.com` reads a site and checks its links.

__main__  the command: options, progress, reports, exit status
crawl     the job: check one URL, and enqueue a job for each link that its page has
fetch     one request: robots.txt, the limit for each host, redirects, private addresses, which errors may pass
logins    user and password in a URL
html      the links of a page
store     the results in SQLite: what is known of each URL, and on which pages it was found
report    the results as a page, CSV and JSON
"""
