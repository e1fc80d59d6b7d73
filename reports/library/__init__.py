"""The result files of this repository: what they hold, whether they are sound, and a page for each."""
