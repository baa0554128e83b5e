"""What every command needs of its machine: files, processes, terminal, network, signals."""
