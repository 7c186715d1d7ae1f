"""Tables as Markdown, CSV, LaTeX and JSON."""
