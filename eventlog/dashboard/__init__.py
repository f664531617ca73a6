"""The page of the log. It needs aiohttp and Jinja2."""
