"""The legal domain: tasks, data sets and how their answers are read. Torch-free."""
