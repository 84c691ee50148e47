"""The processes that work together: their ranks and collectives, requests to them, and a watchdog against stalls."""
