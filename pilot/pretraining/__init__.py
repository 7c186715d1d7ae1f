"""Pre-training of tiny-llava. No other run imports it."""
