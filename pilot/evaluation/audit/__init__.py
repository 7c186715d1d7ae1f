"""What an honest-but-curious server learns from the messages of a client, measured on finished runs."""
