"""Published benchmarks from their own files, asked as lmms-eval asks: VideoMME, MLVU, LongVideoBench and more."""
