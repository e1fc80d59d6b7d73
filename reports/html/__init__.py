"""Report as one HTML page."""
