"""The step engine: many jobs, one denoising step at a time.  It knows neither asyncio nor the bus."""
