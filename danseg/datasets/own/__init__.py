"""Parts of preparing a set of one's own: pairs, ids and colours, polygons, splits, files. Needs no mmseg."""
