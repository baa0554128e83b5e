"""What is jitted: prefill, steps, branches, rows of trees."""
