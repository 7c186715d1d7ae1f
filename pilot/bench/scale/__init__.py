"""Benchmarks of cost over size: server and clients, rounds through Flower, the whole pipeline, a model of any size."""
