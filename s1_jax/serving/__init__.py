"""The server: the queue around the engine, the protocols of its clients, and the page."""
