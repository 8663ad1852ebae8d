"""Where bytes live: a local disk or S3. A scheme is decided once, so another store is one file more."""
