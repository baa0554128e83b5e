"""The decoding loop and its budgets, which know no model."""
