"""What a run needs on a slice nobody owns yet: its step compiled ahead of time, weighed and timed."""
