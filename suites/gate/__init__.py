"""The GPU gate behind `make gpu`: steps that run within one time budget."""
