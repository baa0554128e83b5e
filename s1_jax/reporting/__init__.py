"""Control, Scaling, Performance, tables and plots: reads records only, never a model."""
