"""What schedules: rows, slots, waves, pages, stops."""
