"""The camera demo (`edgemtl demo`, demos/camera.py): the show, its keys, its report, its log."""
