"""`report.html`: one self-contained page per scenario; `page.py` writes it, the other modules make its content."""
