"""Image towers behind one contract, `base.ImageTower`."""
