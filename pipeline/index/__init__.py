"""The tables: schemas, snapshot, commits, audit. The only code that writes them."""
