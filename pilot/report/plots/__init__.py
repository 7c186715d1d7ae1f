"""One module per figure; `style.py` and `page.py` have what they share, `write.py` writes the files."""
