"""Checkpoints in the layouts people download: one file per family, each naming its public source.

Every number of a published configuration is kept but depth and width (layers, hidden sizes, heads): image and patch
size, vocabulary, rotary base, norm epsilons, tied or not, token ids. File names, key names, tokenizer classes, shards
and dtypes are the published ones. Weights are random: no published weights were at hand.
"""
