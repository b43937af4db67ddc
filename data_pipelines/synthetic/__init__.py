"""Audio made with ground truth: speech, singing, sounds and music for training without any recordings."""
