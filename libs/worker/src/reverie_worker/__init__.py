"""What every worker has, whatever it works with: claims, heartbeat, telling, and the one terminal write."""
