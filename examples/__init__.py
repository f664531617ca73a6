"""Complete programs on the queue: first_job is the smallest, links checks the links of a site."""
