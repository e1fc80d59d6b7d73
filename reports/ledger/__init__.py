"""Where the time of a decoder layer goes: parts, launches, and their sum."""
