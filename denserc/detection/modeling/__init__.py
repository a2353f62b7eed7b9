"""F-ViT: the meta-architecture and its parts."""
