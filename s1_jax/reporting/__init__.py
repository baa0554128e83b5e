"""Reports: metrics, tables, plots and the HTML page, made from records alone, never from a model."""
