"""From a video file to frames, in a child process that may die."""
