"""Planted clips: rendered scenes whose truth is known, the questions they answer, and the audits that keep them honest.

Needs numpy alone to render and to ask; PyAV to write files. Knows no model, no Ray, no index.
"""
