"""The page of the log; needs aiohttp and Jinja2."""
