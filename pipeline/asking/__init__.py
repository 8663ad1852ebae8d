"""A new question to a finished index."""
