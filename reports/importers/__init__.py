"""Result files from what other programs have measured."""
