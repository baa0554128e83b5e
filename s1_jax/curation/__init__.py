"""The making of a data set: questions of many sources, traces, a thousand of them chosen (the paper, section 2)."""
