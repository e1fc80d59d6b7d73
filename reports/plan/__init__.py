"""Estimated steps of whole models, composed from measured and published parts."""
