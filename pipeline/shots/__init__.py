"""Shots as an editor means them, found frame by frame in a pass of their own over indexed videos."""
