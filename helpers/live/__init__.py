"""The live system: from a camera to the overlay, the recording and the panel."""
