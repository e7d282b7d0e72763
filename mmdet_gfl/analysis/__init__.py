"""What a data set needs and what a trained model has learned: the logic of ``tools/analysis_tools``."""
