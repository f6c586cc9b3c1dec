"""Where Ray lives: the entry points, and the stages that join `io_adapters` and `zsad`."""
