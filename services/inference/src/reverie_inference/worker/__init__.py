"""The worker: claims jobs from the bus, lets the engine make them, tells how they go, delivers what they give."""
