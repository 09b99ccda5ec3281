"""Real-time human action and facial emotion recognition: the code that more than one notebook needs."""
