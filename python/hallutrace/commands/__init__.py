"""What the commands do and print, a file each; :mod:`hallutrace.cli` only names them."""
