"""The functions of decoding that are jitted: prefill, slots, branches, rows of trees."""
