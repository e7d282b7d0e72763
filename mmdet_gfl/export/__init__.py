"""Trained detectors as ONNX; ``tools/export_onnx.py`` is the command line. docs/export.md has the how and why."""
