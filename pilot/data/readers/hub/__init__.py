"""Reader of data sets in the layout of the Hugging Face hub."""
