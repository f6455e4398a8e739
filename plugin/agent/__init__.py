"""The daemon that runs on every node: event loop, API, storage, metrics, and the wiring between them."""
