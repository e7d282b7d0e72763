"""Requirements of a data set and properties of a trained model: the logic of ``tools/analysis_tools``."""
