"""What is owed to each video, what became of it, and whether the totals agree with the listing."""
