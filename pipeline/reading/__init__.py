"""Search, and the page people look at. Writes nothing to an index."""
