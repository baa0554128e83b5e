"""Search methods, which spend test-time compute on several runs of a problem."""
