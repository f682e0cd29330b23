"""The single-file bundle: schema (`manifest`), weight layout (`layout`), reading (`reader`), writing (`writer`)."""
