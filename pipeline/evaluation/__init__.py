"""What pruning does to answers, measured."""
