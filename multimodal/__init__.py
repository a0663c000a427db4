"""Learn to see from the text that comes free with pictures. Importing this package does no work."""
