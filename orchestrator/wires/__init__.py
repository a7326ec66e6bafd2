"""Request and answer formats that endpoints speak, one file each."""
