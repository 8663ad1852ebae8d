"""The unit of work, up to eight consecutive clips of one video, and its Arrow form."""
