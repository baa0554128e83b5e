"""A sweep: what is asked, what is missing, how it is decoded."""
