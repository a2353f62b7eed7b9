"""Pictures of detections, features and training curves; result tables; the HTML report."""

from .canvas import grid_of_pictures
from .curves import plot_bars, plot_curves
from .detections import DrawnObjects, detected_objects, detection_page, draw_detections, true_objects
from .features import pca_picture, pca_rgb, similarity_map, similarity_picture
from .report import Listing, Picture, Section, Settings, Words, save_picture, write_report
from .segmentation import class_colors, draw_labels, draw_legend, segmentation_page
from .tables import Better, Column, ResultTable, RunStatistics, print_table

__all__ = [
    "Better",
    "Column",
    "DrawnObjects",
    "Listing",
    "Picture",
    "ResultTable",
    "Section",
    "Settings",
    "RunStatistics",
    "Words",
    "class_colors",
    "detected_objects",
    "detection_page",
    "draw_detections",
    "draw_labels",
    "draw_legend",
    "grid_of_pictures",
    "pca_picture",
    "pca_rgb",
    "plot_bars",
    "plot_curves",
    "print_table",
    "save_picture",
    "segmentation_page",
    "similarity_map",
    "similarity_picture",
    "true_objects",
    "write_report",
]
