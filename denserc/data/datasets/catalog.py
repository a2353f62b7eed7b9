"""Detectron2's catalogs, in which a name may be registered again."""

from collections.abc import Callable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog


def register(name: str, load: Callable[[], Sequence[dict]], **metadata) -> None:
    """Put a loader and its metadata into Detectron2's catalogs, in place of a set of the same name."""
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
