"""Facial emotion: faces, the network, its training and the deployed classifier."""
