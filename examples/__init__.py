"""Complete programs on the queue: first_job is the smallest, links checks a site's links, pictures makes thumbnails."""
