"""The mathematics: tensors in, tensors out. No model, tokenizer, file, rank or device name.

Shape suffixes, here and wherever tensors travel: P prompts, G completions of one prompt,
B = P·G rows, T completion tokens, V vocabulary.
"""
