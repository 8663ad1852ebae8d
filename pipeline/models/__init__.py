"""From a model's name to a loaded encoder or Video LLM: files, preprocessing, devices."""
