"""Average precision: tables of objects, matching, and the metrics computed from them."""
