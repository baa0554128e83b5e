"""Chat formats and loss masks, tokenization, packing, the data loader and the synthetic task."""
