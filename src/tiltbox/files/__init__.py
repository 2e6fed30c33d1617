"""Files of any content: whole or not at all, downloads, archives, zips, disk space."""
