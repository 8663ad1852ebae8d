"""The tables: what they are, snapshot, commits, audit. The only code that writes them."""
