"""Records: one JSON line per problem and setting; their fields, reading and writing."""
