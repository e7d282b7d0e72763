"""The paper's tables: which configs are their rows, how a row is shrunk, and what was measured."""
