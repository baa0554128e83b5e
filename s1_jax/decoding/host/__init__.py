"""The host's side of decoding, which schedules: slots, waves, pages, stop strings."""
