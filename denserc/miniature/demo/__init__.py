"""The demo (`denserc demo`): from the miniature CLIP to detections, by the same code and configs as the real thing."""
