"""Human action: clips, motion, the network, its training and the deployed classifier."""
