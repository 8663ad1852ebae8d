"""The published benchmarks on made-up rows, against lmms-eval where it is installed."""
