"""Edits of captions, and what they need to know of English."""
