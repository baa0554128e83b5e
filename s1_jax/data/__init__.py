"""Chat format and loss spans, rows to tokens, packing, the loader, the synthetic task."""
