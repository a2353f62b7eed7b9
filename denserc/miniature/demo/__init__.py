"""The demo: from the miniature CLIP to open-vocabulary detections, by the same code and configs as the real thing."""
