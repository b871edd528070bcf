"""Out of the run folder: ordinary model and adapter folders, GGUF files, the hub, and servers."""
