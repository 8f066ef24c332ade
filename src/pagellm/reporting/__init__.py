"""Floor 5: pages and figures as text and self-contained HTML. Titles are data and are always escaped."""
