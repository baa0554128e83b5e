"""Methods on top of decoding that spend compute on more than one run of a problem."""
