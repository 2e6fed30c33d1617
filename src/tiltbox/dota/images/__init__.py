"""Images: which files are images, their pixels, the formats PNG and TIFF."""
