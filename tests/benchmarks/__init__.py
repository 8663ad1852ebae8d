"""Benchmark scripts at small size: that they run, and that what they check can fail."""
