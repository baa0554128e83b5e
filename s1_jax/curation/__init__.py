"""Curation of a data set: questions from many sources, their traces, and the selection of 1,000 (paper, section 2)."""
