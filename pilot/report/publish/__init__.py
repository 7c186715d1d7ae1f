"""Results and data in formats of others: Croissant, RO-Crate, Every Eval Ever and `.eval_results` of Hugging Face."""
