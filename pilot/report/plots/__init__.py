"""One module per figure; `style.py` holds what they share."""
