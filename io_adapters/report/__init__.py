"""The page a person opens: `page` renders it, `charts` draws the small charts on it."""
