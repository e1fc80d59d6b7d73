"""Time breakdown of a decoder layer: parts, launches, and their sum."""
