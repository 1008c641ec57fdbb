"""Molecules to subtomograms with masks."""
