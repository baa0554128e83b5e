"""Plans of runs on slices that need not exist: programs compiled ahead of time, their memory and their least times."""
